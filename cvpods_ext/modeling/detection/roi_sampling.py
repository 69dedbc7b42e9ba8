"""Regions of interest of a training batch: proposals with a label, laid out flat.

Shapes: N = images, G = ground-truth boxes of the fullest image, K = proposals per image, R = RoIs of the batch,
C = foreground classes; label C is background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cvpods_ext.modeling.detection.anchor_matching import PaddedTargets, Priorities, match, random_priorities, sample
from cvpods_ext.modeling.detection.rpn import Proposals
from cvpods_ext.modeling.layers import to_device, to_host
from cvpods_ext.structures import Targets
from cvpods_ext.structures import boxes as box_ops


class RoIs(NamedTuple):
    """Boxes (R, 4), their image (R,), label (R,), and the ground truth they match: index in its image (R,), box (R, 4).

    Sorted by image, foreground first. The ground truth of a background row means nothing.
    """

    boxes: Tensor
    image: Tensor
    labels: Tensor
    truth_index: Tensor
    truth_boxes: Tensor

    def rows(self, index: Tensor) -> RoIs:
        """Some of them, by position."""
        return RoIs(*(column[index] for column in self))

    def to(self, device: torch.device) -> RoIs:
        """Copies on `device`, which is not waited for."""
        return RoIs(*(to_device(column, device) for column in self))


@dataclass(frozen=True)
class RoISampler:
    """Labels the proposals and the ground-truth boxes themselves, then draws `count` RoIs per image.

    At most `foreground_fraction` of them reach `iou_threshold` with an object. How many there are is known only when
    the device has caught up; to wait no second time, everything about them is brought to the host at once.
    """

    num_classes: int
    count: int = 512
    foreground_fraction: float = 0.25
    iou_threshold: float = 0.5
    priorities: Priorities = random_priorities

    @torch.no_grad()
    def __call__(self, proposals: Proposals, truth: PaddedTargets) -> RoIs:
        """The RoIs that a training step looks at, in host memory, where the mask targets will be drawn."""
        boxes = torch.cat((proposals.boxes, truth.boxes.to(proposals.boxes.dtype)), dim=1)
        usable = torch.cat((proposals.valid, truth.labels >= 0), dim=1)
        labels = match(truth, boxes, low=self.iou_threshold, high=self.iou_threshold)
        drawn = sample(labels.label.masked_fill(~usable, -1), self.count, self.foreground_fraction, self.priorities)
        image = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(drawn.index)
        padded = _with_truth(
            boxes[image, drawn.index].flatten(0, 1),
            image.flatten(),
            labels.index.gather(1, drawn.index).flatten(),
            drawn.foreground.flatten(),
            truth,
            self.num_classes,
        )
        *on_host, valid = to_host(*padded, drawn.valid.flatten())
        return RoIs(*on_host).rows(valid.nonzero()[:, 0])


@torch.no_grad()
def relabel(boxes: Tensor, image: Tensor, truth: PaddedTargets, *, num_classes: int, iou_threshold: float) -> RoIs:
    """Label given boxes (R, 4) of images (R,) again, as the later stages of a cascade do; nothing is drawn or added."""
    if truth.labels.shape[1] == 0:
        index = torch.zeros_like(image)
        return _with_truth(boxes, image, index, torch.zeros_like(image, dtype=torch.bool), truth, num_classes)
    quality = box_ops.iou(boxes[:, None], truth.boxes[image])
    quality = quality.masked_fill_(truth.labels[image] < 0, -1.0)
    best, index = quality.max(dim=1)
    return _with_truth(boxes, image, index, best >= iou_threshold, truth, num_classes)


def _with_truth(
    boxes: Tensor, image: Tensor, index: Tensor, foreground: Tensor, truth: PaddedTargets, num_classes: int
) -> RoIs:
    if truth.labels.shape[1] == 0:
        background = torch.full_like(image, num_classes)
        return RoIs(boxes, image, background, index, torch.zeros_like(boxes))
    labels = torch.where(foreground, truth.labels[image, index], num_classes)
    return RoIs(boxes, image, labels, index, truth.boxes[image, index])


def mask_targets(targets: Sequence[Targets], boxes: Tensor, image: Tensor, truth_index: Tensor, size: int) -> Tensor:
    """What each foreground box sees of its object: CPU tensors (F, 4), (F,), (F,) -> (F, size, size) float32."""
    parts = [torch.zeros((0, size, size), dtype=torch.bool)]
    for i, target in enumerate(targets):
        rows = image == i
        assert target.masks is not None, f"image {target.image_id} has no masks, but the model has a mask head"
        parts.append(target.masks[truth_index[rows]].crop_and_resize(boxes[rows], size))
    return torch.cat(parts).float()
