"""From class scores and boxes to what is reported: selection, suppression, masks in the original picture.

Shapes: R = RoIs of one image, C = foreground classes, P = candidate pairs, M = detections, S = side of a mask (28).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pycocotools.mask as coco_mask
import torch
from torch import Tensor

from cvpods_ext.modeling.detection.nms import first_survivors
from cvpods_ext.modeling.detection.soft_nms import MIN_SCORE, Decay, soft_nms
from cvpods_ext.structures import Detections, Targets
from cvpods_ext.structures import boxes as box_ops

Size = tuple[int, int]
Decode = Callable[[Tensor, Tensor], Tensor]

MASKS_AT_ONCE = 1000  # bounds the memory of images with thousands of detections, which Soft-NMS may leave


@dataclass(frozen=True)
class Selection:
    """What counts as a detection: scores strictly above the threshold, suppression and its IoU, number per image.

    `suppression` is hard or by one of the decays of Soft-NMS. With a `maskness_threshold` above 0 scores are lowered
    by how sure the mask is, see `mask_scoring.rescore`. The best `limit_per_class` of each class of an image are kept,
    and of these the best `limit`; None keeps all.
    """

    score_threshold: float = 0.0001
    nms_threshold: float = 0.5
    limit: int | None = 300
    suppression: Literal["hard", "linear", "gaussian"] = "hard"
    maskness_threshold: float = 0.0
    limit_per_class: int | None = None

    def best(self, found: RawDetections) -> RawDetections:
        """As many of the detections of an image, which are sorted by score, as the limits allow."""
        if self.limit_per_class is not None and len(found.labels):
            place = _place_in_class(found.labels)
            found = found.rows((place < self.limit_per_class).nonzero()[:, 0])
        return found if self.limit is None else found.rows(slice(0, self.limit))


@dataclass
class RawDetections:
    """Detections of one image in the pixels of the network's input, best first.

    boxes (M, 4), scores (M,), labels (M,), mask_probabilities (M, S, S) or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_probabilities: Tensor | None = None

    def rows(self, index: Tensor | slice) -> RawDetections:
        """Some of the detections, in the order of `index`."""
        masks = None if self.mask_probabilities is None else self.mask_probabilities[index]
        return RawDetections(self.boxes[index], self.scores[index], self.labels[index], masks)


def _place_in_class(labels: Tensor) -> Tensor:
    """(M,) labels -> (M,) how many equal labels come before each."""
    order = labels.sort(stable=True).indices
    _, sizes = torch.unique_consecutive(labels[order], return_counts=True)
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device) - starts)


def select(scores: Tensor, decode: Decode, image_size: Tensor, selection: Selection) -> RawDetections:
    """The best pairs of RoI and class, after suppression within each class.

    scores (R, C); `decode` maps rows (P,) and classes (P,) to boxes (P, 4), which are clipped to `image_size`
    (4,) = width, height, width, height. Pairs with a score or box that is not finite are dropped. Only as many of the
    best pairs as the answer depends on are decoded and compared, so a low threshold over a thousand classes costs
    little.
    """
    if selection.suppression != "hard":
        return _select_softly(scores, decode, image_size, selection, selection.suppression)
    flat = scores.flatten()
    passing = ((flat > selection.score_threshold) & flat.isfinite()).nonzero()[:, 0]
    values = flat[passing]
    # a limit per class may leave the image's limit to any detection
    wanted = len(values) if selection.limit is None or selection.limit_per_class is not None else selection.limit
    take = 4 * wanted
    while True:
        best, where = values.topk(min(take, len(values)))
        found = _decoded(passing[where], best, decode, image_size, scores.shape[1])
        keep = first_survivors(found.boxes, found.labels, selection.nms_threshold, wanted)
        if len(keep) == wanted or take >= len(values):
            return selection.best(found.rows(keep))
        take *= 4


def _select_softly(
    scores: Tensor, decode: Decode, image_size: Tensor, selection: Selection, decay: Decay
) -> RawDetections:
    """`select` by Soft-NMS: every pair takes part, and all that remain are returned if masks will rescore them."""
    flat = scores.flatten()
    # what starts below the least score can neither remain nor lower another
    passing = ((flat > selection.score_threshold) & (flat >= MIN_SCORE) & flat.isfinite()).nonzero()[:, 0]
    found = _decoded(passing, flat[passing], decode, image_size, scores.shape[1])
    keep, lowered = soft_nms(
        found.boxes, found.scores, found.labels, decay=decay, iou_threshold=selection.nms_threshold
    )
    remaining = RawDetections(found.boxes[keep], lowered, found.labels[keep])
    return remaining if selection.maskness_threshold else selection.best(remaining)


def _decoded(pairs: Tensor, scores: Tensor, decode: Decode, image_size: Tensor, num_classes: int) -> RawDetections:
    """Boxes of pairs (P,) = row * C + class, clipped; those that are not finite are left out."""
    rows, classes = torch.div(pairs, num_classes, rounding_mode="floor"), pairs % num_classes
    boxes = decode(rows, classes)
    finite = boxes.isfinite().all(dim=1)
    return RawDetections(box_ops.clip_to(boxes[finite], image_size), scores[finite], classes[finite])


def finish(raw: RawDetections, target: Targets) -> Detections:
    """Move to original pixels, drop what became empty there, paste and encode masks; may run in a worker thread.

    `target` tells the size of the network's input and of the original picture.
    """
    height, width = target.original_size
    scaled = box_ops.scale(raw.boxes.float().cpu(), width / target.size[1], height / target.size[0])
    scaled = box_ops.clip(scaled, target.original_size)
    keep = box_ops.nonempty(scaled)
    masks = None
    if raw.mask_probabilities is not None:
        masks = encode_masks(raw.mask_probabilities.float().cpu()[keep], scaled[keep], target.original_size)
    return Detections(
        boxes=scaled[keep],
        scores=raw.scores.cpu()[keep],
        labels=raw.labels.cpu()[keep],
        image_id=target.image_id,
        size=target.original_size,
        masks=masks,
    )


def encode_masks(probabilities: Tensor, boxes: Tensor, size: Size) -> list[dict[str, Any]]:
    """Paste (M, S, S) probabilities into boxes (M, 4) of a picture of `size` and encode as COCO RLE, one at a time.

    Pixels are read bilinearly at their centres, zero outside, and belong to the mask from 0.5 on. Only the rectangle
    of the box is ever rasterised, so memory is one rectangle and not M pictures.
    """
    encoded: list[Any] = []
    for probability, box in zip(probabilities.numpy(), boxes.numpy(), strict=True):
        x0, columns = _taps(box[0], box[2], size[1], len(probability))
        y0, rows = _taps(box[1], box[3], size[0], len(probability))
        tall = np.ascontiguousarray(_interpolate(probability, rows).T)
        pasted = _interpolate(tall, columns) >= 0.5  # (width, height): RLE runs down the columns
        encoded.append({"size": list(size), "counts": _run_lengths(pasted, x0, y0, size)})
    return cast(list[dict[str, Any]], coco_mask.frPyObjects(encoded, *size)) if encoded else []


def _taps(low: np.float32, high: np.float32, length: int, side: int) -> tuple[int, list[tuple[np.ndarray, np.ndarray]]]:
    """First pixel of a box along one axis; for its pixels the two cells of the mask that they mix, and the shares."""
    first, last = max(int(np.floor(low)) - 1, 0), min(int(np.ceil(high)) + 1, length)
    centres = np.arange(first, last, dtype=np.float32) + np.float32(0.5)
    unit = (centres - low) / (high - low) * np.float32(2) - np.float32(1)
    position = ((unit + np.float32(1)) * np.float32(side) - np.float32(1)) / np.float32(2)
    cell = np.floor(position)
    taps = []
    for one, share in ((cell, cell + np.float32(1) - position), (cell + 1, position - cell)):
        inside = (one >= 0) & (one < side)
        taps.append((np.where(inside, one, 0).astype(np.intp), np.where(inside, share, np.float32(0))[:, None]))
    return first, taps


def _interpolate(mask: np.ndarray, taps: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(S, K) -> (pixels, K), a mix of two rows each; without BLAS, so that worker threads can run side by side."""
    (here, share), (there, rest) = taps
    mixed = mask[here]
    mixed *= share
    other = mask[there]
    other *= rest
    mixed += other
    return mixed


def _run_lengths(mask: np.ndarray, x0: int, y0: int, size: Size) -> np.ndarray:
    """Column-major run lengths, starting with zeros, of a (width, height) bool rectangle placed at x0, y0."""
    width, height = mask.shape
    line = np.zeros(1 + width * (height + 1), dtype=bool)  # a zero before the first column and after each
    line[1:].reshape(width, height + 1)[:, :height] = mask
    column, row = np.divmod(np.flatnonzero(line[1:] != line[:-1]), height + 1)
    position = (x0 + column) * size[0] + y0 + row
    # a run that reaches the bottom and one that starts at the top of the next column are one run
    joined = position[1:] == position[:-1]
    alone = np.ones(len(position), dtype=bool)
    alone[1:] &= ~joined
    alone[:-1] &= ~joined
    counts = np.diff(position[alone], prepend=0, append=size[0] * size[1])
    return counts if counts[-1] else counts[:-1]


def finish_all(raw: Sequence[RawDetections], targets: Sequence[Targets]) -> list[Detections]:
    """`finish` for every image of a batch."""
    return [finish(one, target) for one, target in zip(raw, targets, strict=True)]
