"""One query for every object: the assignment of least cost (DETR, https://arxiv.org/abs/2005.12872, section 3.1).

Shapes: K = predictions of the same objects (decoder layers, proposals), N = images, Q = queries, C = classes,
G = objects of the fullest image, P = assigned pairs of all predictions and images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cvpods_ext.modeling.detr.boxes import generalized_iou, to_corners
from cvpods_ext.modeling.layers import to_device

_LOG_EPS = 1e-8


@dataclass(frozen=True)
class Objects:
    """Ground truth of a batch: labels (N, G), -1 where padded, boxes (N, G, 4) centre and size in [0, 1] of the image.

    `counts` are the numbers of objects, known without asking the device.
    """

    labels: Tensor
    boxes: Tensor
    counts: tuple[int, ...]


class Predictions(NamedTuple):
    """logits (K, N, Q, C) and boxes (K, N, Q, 4), centre and size in [0, 1] of the image."""

    logits: Tensor
    boxes: Tensor


class Pairs(NamedTuple):
    """Which query belongs to which object, four times (P,) int64: prediction, image, query, object."""

    prediction: Tensor
    image: Tensor
    query: Tensor
    object: Tensor


@dataclass(frozen=True)
class MatchingCost:
    """Weights of the three terms, and the focal parameters of the first."""

    classification: float = 2.0
    box: float = 5.0
    giou: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0

    @torch.no_grad()
    def __call__(self, predictions: Predictions, objects: Objects) -> Tensor:
        """Cost of every query for every object of its image, (K, N, Q, G); columns of padding mean nothing."""
        logits, boxes = predictions.logits.float(), predictions.boxes.float()
        columns = objects.labels.clamp(min=0)[None, :, None].expand(*logits.shape[:3], -1)
        score = logits.gather(3, columns).sigmoid()
        positive = -self.alpha * (1 - score) ** self.gamma * (score + _LOG_EPS).log()
        negative = -(1 - self.alpha) * score**self.gamma * (1 - score + _LOG_EPS).log()
        theirs = objects.boxes[None, :, None]
        distance = torch.cdist(boxes, objects.boxes.expand(len(boxes), -1, -1, -1), p=1)
        overlap = generalized_iou(to_corners(boxes)[:, :, :, None], to_corners(theirs))
        return self.classification * (positive - negative) + self.box * distance - self.giou * overlap


class PendingPairs:
    """An assignment under way: its costs travel to the host, where `result` solves it.

    What the caller asks of the device in between runs while the host waits and solves; this is the one time that a
    training step waits for the device.
    """

    def __init__(self, cost: Tensor, counts: Sequence[int]) -> None:
        self._device, self._counts = cost.device, counts
        # The solver refuses what is not finite; any pairs will do then, since the loss is not finite either.
        self._cost = cost.nan_to_num(0.0, posinf=1e6, neginf=-1e6).to("cpu", non_blocking=True)
        self._arrived = None
        if cost.is_cuda:
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def result(self) -> Pairs:
        """For every prediction and image min(queries, objects) pairs, no query and no object twice."""
        if self._arrived is not None:
            self._arrived.synchronize()
        found = solve(self._cost.numpy(), self._counts)
        return Pairs(*to_device(torch.from_numpy(found), self._device).unbind(0))


def solve(cost: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """(K, N, Q, G) -> (4, P) int64: prediction, image, query and object of every pair, queries ascending."""
    found = [np.zeros((4, 0), dtype=np.int64)]
    for prediction, images in enumerate(cost):
        for image, (one, count) in enumerate(zip(images, counts, strict=True)):
            queries, objects = linear_sum_assignment(one[:, :count])
            found.append(np.stack((np.full_like(queries, prediction), np.full_like(queries, image), queries, objects)))
    return np.concatenate(found, axis=1)
