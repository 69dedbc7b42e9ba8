"""Map-style data sets: one image with its targets, read, checked and transformed in a worker process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cvpods_ext.data import images, transforms
from cvpods_ext.data.annotations.annotations import Annotations, Instances
from cvpods_ext.errors import DataError
from cvpods_ext.structures import BitMasks, Masks, PolygonMasks, Targets


@dataclass(frozen=True)
class BrokenImage:
    """An image that could not be used, and why."""

    image_id: int
    reason: str


@dataclass
class Sample:
    """What a worker hands over; `image` and `targets` are None if no image could be read."""

    image: Tensor | None = None
    targets: Targets | None = None
    broken: list[BrokenImage] = field(default_factory=list)


@dataclass
class TrainingDataset(Dataset):
    """Augmented training samples, addressed by (draw, image) so that every draw has its own fixed randomness.

    A broken image is replaced by the next readable one and reported in the sample; `patience` is how many broken
    ones in a row are stepped over.

    Args:
        positions: which images of the annotations are trained on.
    """

    annotations: Annotations
    positions: np.ndarray
    transforms: Sequence[transforms.Transform]
    channels: images.Channels
    seed: int
    patience: int

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        draw, image = key
        sample = Sample()
        for step in range(min(self.patience + 1, len(self))):
            position = int(self.positions[(image + step) % len(self)])
            try:
                pixels = read_image(self.annotations, position, self.channels)
            except DataError as error:
                sample.broken.append(BrokenImage(int(self.annotations.image_ids[position]), str(error)))
                continue
            targets = read_targets(self.annotations, position)
            rng = np.random.default_rng((self.seed, draw))
            for transform in self.transforms:
                pixels, targets = transform(pixels, targets, rng)
            sample.image, sample.targets = pixels, transforms.finish(targets)
            break
        return sample


@dataclass
class InferenceDataset(Dataset):
    """Images to be tested, resized the same way every time; targets carry sizes and ids but no ground truth."""

    annotations: Annotations
    positions: np.ndarray
    resize: transforms.ShortestEdgeResize
    channels: images.Channels

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Sample:
        position = int(self.positions[index])
        try:
            pixels = read_image(self.annotations, position, self.channels)
        except DataError as error:
            return Sample(broken=[BrokenImage(int(self.annotations.image_ids[position]), str(error))])
        size = self.annotations.size(position)
        targets = Targets(
            boxes=torch.zeros((0, 4)),
            labels=torch.zeros(0, dtype=torch.int64),
            image_id=int(self.annotations.image_ids[position]),
            size=size,
            original_size=size,
        )
        return Sample(*self.resize(pixels, targets, np.random.default_rng(0)))


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
