"""Images with boxes and masks: read from the annotations, transformed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from torch import Tensor

from cvpods_ext.data import images, transforms
from cvpods_ext.data.annotations.annotations import Annotations, Instances
from cvpods_ext.structures import BitMasks, Masks, PolygonMasks, Targets


@dataclass(frozen=True)
class DetectionImages:
    """The images of an annotation file as `data.dataset.ImageSource`: with boxes and masks, augmented or resized.

    Targets of a test carry sizes and ids but no ground truth.
    """

    annotations: Annotations
    channels: images.Channels
    augmentation: Sequence[transforms.Transform] = ()
    resize: transforms.ShortestEdgeResize | None = None

    def image_id(self, position: int) -> int:
        """The id in the annotation file."""
        return int(self.annotations.image_ids[position])

    def training_sample(self, position: int, rng: np.random.Generator) -> tuple[Tensor, Targets]:
        """The image at `position` after every transform of `augmentation` in turn."""
        pixels = read_image(self.annotations, position, self.channels)
        targets = read_targets(self.annotations, position)
        for transform in self.augmentation:
            pixels, targets = transform(pixels, targets, rng)
        return pixels, transforms.finish(targets)

    def test_sample(self, position: int) -> tuple[Tensor, Targets]:
        """The image at `position`, resized."""
        pixels = read_image(self.annotations, position, self.channels)
        return to_test_sample(pixels, self.image_id(position), self.resize)


def to_test_sample(
    pixels: Tensor, image_id: int, resize: transforms.ShortestEdgeResize | None
) -> tuple[Tensor, Targets]:
    """An image (3, H, W) as a model is given it in a test, and targets without ground truth."""
    size = (pixels.shape[1], pixels.shape[2])
    targets = Targets(
        boxes=torch.zeros((0, 4)),
        labels=torch.zeros(0, dtype=torch.int64),
        image_id=image_id,
        size=size,
        original_size=size,
    )
    return (pixels, targets) if resize is None else resize(pixels, targets, np.random.default_rng(0))


def read_image(annotations: Annotations, position: int, channels: images.Channels) -> Tensor:
    """uint8 (3, H, W) of the image at `position`; DataError names file and id."""
    return images.read(
        annotations.image_path(position), annotations.size(position), int(annotations.image_ids[position]), channels
    )


def read_targets(annotations: Annotations, position: int) -> Targets:
    """Ground truth in original pixels, crowds left out; boxes are float64 until `transforms.finish`."""
    instances = annotations.instances(position)
    size = annotations.size(position)
    single = np.flatnonzero(~instances.crowd)
    return Targets(
        boxes=torch.from_numpy(instances.boxes[single]),
        labels=torch.from_numpy(instances.labels[single]),
        masks=_masks(instances, single, size),
        image_id=int(annotations.image_ids[position]),
        size=size,
        original_size=size,
        negative_labels=torch.from_numpy(annotations.negative_labels(position)),
        not_exhaustive_labels=torch.from_numpy(annotations.not_exhaustive_labels(position)),
    )


def _masks(instances: Instances, chosen: np.ndarray, size: tuple[int, int]) -> Masks | None:
    """Polygons if all chosen instances have them, bitmaps as soon as one has RLE, None for boxes only."""
    polygons = PolygonMasks(instances.vertices.astype(np.float64), instances.polygon_starts, instances.instance_starts)
    if len(chosen) < len(instances):
        polygons = polygons[chosen]
    encoded = [i for i, row in enumerate(chosen) if instances.rle[row]]
    if not encoded:
        has_masks = len(chosen) == 0 or bool((np.diff(polygons.instance_starts) > 0).any())
        return polygons if has_masks else None
    bitmaps = polygons.to_bitmasks(size).bitmaps
    rles: Any = [{"size": list(size), "counts": instances.rle[chosen[i]]} for i in encoded]
    bitmaps[encoded] = torch.from_numpy(coco_mask.decode(rles).transpose(2, 0, 1).astype(bool))
    return BitMasks(bitmaps)
