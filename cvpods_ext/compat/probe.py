"""A drawn batch on which an old network and ours are compared: no images are needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvpods_ext.config.classification import ClassificationConfig
from cvpods_ext.config.detection import DetectionData
from cvpods_ext.config.schema import Config
from cvpods_ext.data import classification_statistics, num_shots
from cvpods_ext.structures import Batch, Targets
from cvpods_ext.structures.classification import ImageClass
from cvpods_ext.structures.masks import PolygonMasks

_LABELS = 6
_SIDES = ((192, 256), (160, 224))  # height and width of the images of detectors


def probe_batch(config: Config, folder: Path) -> Batch[Any]:
    """Two images of noise with objects, or six with classes, always the same; frequent and rare classes are among them.

    DataError where nothing is known of the training set of the experiment in `folder`.
    """
    draw = torch.Generator().manual_seed(0)
    if isinstance(config, ClassificationConfig):
        size = (config.data.image_side, config.data.image_side)
        counts = torch.from_numpy(classification_statistics.training_counts(config.data, folder))
        targets = [ImageClass(label, i + 1, size, size) for i, label in enumerate(_labels(counts))]
        return Batch([_noise(draw, *size) for _ in targets], targets)
    assert isinstance(config.data, DetectionData)
    labels = _labels(num_shots.class_counts(config.data, folder))
    images = [_noise(draw, height, width) for height, width in _SIDES]
    return Batch(images, [_objects(draw, i + 1, size, labels) for i, size in enumerate(_SIDES)])


def _labels(counts: Tensor) -> list[int]:
    """Six classes from the most frequent to the rarest."""
    order = counts.argsort(descending=True, stable=True)
    return order[torch.linspace(0, len(order) - 1, _LABELS).long()].tolist()


def _noise(draw: torch.Generator, height: int, width: int) -> Tensor:
    return torch.randint(256, (3, height, width), generator=draw, dtype=torch.uint8)


def _objects(draw: torch.Generator, image_id: int, size: tuple[int, int], labels: list[int]) -> Targets:
    """Rectangles of 30 to 90 pixels, one of each class."""
    height, width = size
    sides = 30 + 60 * torch.rand(len(labels), 2, generator=draw)
    corner = torch.rand(len(labels), 2, generator=draw) * (torch.tensor([width, height]) - sides)
    boxes = torch.cat((corner, corner + sides), dim=1)
    polygons = [[[x0, y0, x1, y0, x1, y1, x0, y1]] for x0, y0, x1, y1 in boxes.tolist()]
    return Targets(boxes, torch.tensor(labels), image_id, size, size, PolygonMasks.from_lists(polygons))
