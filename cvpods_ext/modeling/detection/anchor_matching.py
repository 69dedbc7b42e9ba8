"""Which ground truth a box is compared with, and which boxes are trained on: matching and sampling.

All functions work on the whole batch and never ask the device for a number, so that a GPU is not kept waiting.
Shapes: N = images, G = ground-truth boxes of the fullest image (others are padded), P = boxes (anchors or proposals).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cvpods_ext.structures import Targets
from cvpods_ext.structures import boxes as box_ops

PAIRS_AT_ONCE = 1 << 24  # entries of one IoU table; bounds the memory of images with hundreds of objects

Priorities = Callable[[Sequence[int], torch.device], Tensor]


class PaddedTargets(NamedTuple):
    """Boxes (N, G, 4) and labels (N, G) of a batch; padding has label -1."""

    boxes: Tensor
    labels: Tensor


def pad_targets(targets: Sequence[Targets]) -> PaddedTargets:
    """Stack the ground truth of several images."""
    return PaddedTargets(
        pad_sequence([target.boxes for target in targets], batch_first=True),
        pad_sequence([target.labels for target in targets], batch_first=True, padding_value=-1),
    )


class AnchorMatches(NamedTuple):
    """For every box its best ground truth (N, P) and whether it is foreground 1, background 0 or ignored -1."""

    index: Tensor
    label: Tensor


def match(truth: PaddedTargets, boxes: Tensor, *, low: float, high: float, keep_best: bool = False) -> AnchorMatches:
    """Compare boxes (N, P, 4), or (P, 4) shared by all images, with the ground truth of their image.

    Best IoU >= high is foreground, < low is background, ignored between. With `keep_best` every box that ties the best
    IoU of any ground truth is foreground too, yet keeps its own best ground truth. Without objects all is background.
    """
    if boxes.dim() == 2:
        boxes = boxes.expand(len(truth.labels), -1, -1)
    images, objects = truth.labels.shape
    value = boxes.new_full(boxes.shape[:2], -1.0)
    index = torch.zeros(boxes.shape[:2], dtype=torch.int64, device=boxes.device)
    forced = torch.zeros(boxes.shape[:2], dtype=torch.bool, device=boxes.device)
    step = max(1, PAIRS_AT_ONCE // max(1, images * boxes.shape[1]))
    for start in range(0, objects, step):
        part = slice(start, start + step)
        quality = box_ops.iou(truth.boxes[:, part, None], boxes[:, None])
        quality.masked_fill_((truth.labels[:, part] < 0)[:, :, None], -1.0)
        best, where = quality.max(dim=1)
        better = best > value
        value = torch.where(better, best, value)
        index = torch.where(better, where + start, index)
        if keep_best and boxes.shape[1]:
            top = quality.amax(dim=2, keepdim=True)
            forced |= ((quality == top) & (top > 0)).any(dim=1)  # an object that meets no box forces none
    return AnchorMatches(index, threshold(value, forced, low, high))


def threshold(value: Tensor, forced: Tensor, low: float, high: float) -> Tensor:
    """Best IoU (N, P) and forced foreground (N, P) -> labels 1, 0, -1."""
    label = torch.where(value >= low, torch.where(value >= high, 1, -1), 0)
    return label.masked_fill_(forced, 1)


class SampledBoxes(NamedTuple):
    """Positions (N, S) of the drawn boxes, foreground first; `valid` is False where too few were there."""

    index: Tensor
    foreground: Tensor
    valid: Tensor


def random_priorities(shape: Sequence[int], device: torch.device) -> Tensor:
    """Uniform random priorities in [0, 1); the default of every sampler."""
    return torch.rand(tuple(shape), device=device)


def sample(labels: Tensor, count: int, foreground_fraction: float, priorities: Priorities) -> SampledBoxes:
    """Draw up to `count` boxes of an image, at most int(count * fraction) of them foreground, the rest background.

    labels (N, P) are 1, 0 or -1 (never drawn). Within a kind the highest `priorities` win, in descending order; they
    are called with (N, P) and must not be negative.
    """
    rank = priorities(labels.shape, labels.device)
    most = min(int(count * foreground_fraction), labels.shape[1])
    positive, positive_index = torch.where(labels == 1, rank, -1.0).topk(most, dim=1)
    negative, negative_index = torch.where(labels == 0, rank, -1.0).topk(min(count, labels.shape[1]), dim=1)
    foreground = positive >= 0
    room = count - foreground.sum(dim=1, keepdim=True)
    position = torch.arange(negative.shape[1], device=labels.device)
    background = (negative >= 0) & (position < room)
    return SampledBoxes(
        torch.cat((positive_index, negative_index), dim=1),
        torch.cat((foreground, torch.zeros_like(background)), dim=1),
        torch.cat((foreground, background), dim=1),
    )
