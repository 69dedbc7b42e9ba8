"""The records of detection and instance segmentation: `Targets` go into a model, `Detections` come out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from cvpods_ext.structures.masks import Masks

Size = tuple[int, int]


def _no_labels() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)


@dataclass
class Targets:
    """Ground truth of one image, in the pixels of the image that the model sees.

    boxes (N, 4) float32 XYXY; labels (N,) int64 in [0, num_classes), categories in the order of their sorted ids;
    `size` and `original_size` are (height, width) after and before resizing. LVIS is annotated federatedly:
    `negative_labels` were verified absent, `not_exhaustive_labels` may have unlabelled instances.
    """

    boxes: Tensor
    labels: Tensor
    image_id: int
    size: Size
    original_size: Size
    masks: Masks | None = None
    negative_labels: Tensor = field(default_factory=_no_labels)
    not_exhaustive_labels: Tensor = field(default_factory=_no_labels)

    def __post_init__(self) -> None:
        assert len(self.boxes) == len(self.labels), f"{len(self.boxes)} boxes, {len(self.labels)} labels"
        assert self.masks is None or len(self.masks) == len(self.labels), "one mask per label"

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Targets:
        """Move the tensors; masks stay on the CPU, where they are rasterised."""
        move: dict[str, Any] = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("boxes", "labels", "negative_labels", "not_exhaustive_labels")
        }
        return replace(self, **move)

    def pin_memory(self) -> Targets:
        """Page-locked copy, called by the data loader before an asynchronous copy to the device."""
        return replace(self, boxes=self.boxes.pin_memory(), labels=self.labels.pin_memory())


@dataclass
class Detections:
    """What was found in one image, in its original pixels, best score first.

    boxes (N, 4) float32 XYXY; scores (N,) float32 in [0, 1]; labels (N,) int64; `masks` holds N COCO RLE dicts
    ({"size": [height, width], "counts": bytes}) or is None for a box-only model. `size` is (height, width).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    image_id: int
    size: Size
    masks: list[dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.labels)
