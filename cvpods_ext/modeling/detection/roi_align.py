"""RoIAlign on the processor as weighted sums of feature vectors (https://arxiv.org/abs/1703.06870, section 3).

Bilinear samples and their average are linear and separable: an output cell is a sum over few rows and columns of the
map, with weights that are the same for all channels. Reading a feature vector once for all its channels is several
times faster than torchvision's kernel for the processor, and ten times in the gradient; the values are the same.

Shapes: R = RoIs, B = images, C = channels, S = output cells per side, K = cells of the map under one output cell,
T = products of weight and feature vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PRODUCTS_AT_ONCE = 1 << 22  # bounds the memory of lists of products


class Axis(NamedTuple):
    """One axis of all RoIs: map cells under an output cell (R,), the first of them (R, S), their weights (R, S, K)."""

    count: Tensor
    first: Tensor
    weights: Tensor


class Products(NamedTuple):
    """Sums of some RoIs: their positions, table rows and weights of all products (T,), products per output cell."""

    rois: Tensor
    rows: Tensor
    weights: Tensor
    per_cell: Tensor


def roi_align_rows(
    features: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, image: Tensor, levels: Tensor, size: int
) -> Tensor:
    """Maps (B, C, H, W) per level, boxes (R, 4), their image (R,) and level (R,) -> (R, C, S, S).

    Equals torchvision's roi_align with aligned=True and sampling_ratio=0 on the level of each box.
    """
    channels, dtype = features[0].shape[1], features[0].dtype
    table = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, channels) for level in features])
    table = table if dtype == torch.float64 else table.float()
    if len(boxes) == 0:
        return table[:0].reshape(0, channels, size, size).to(dtype)
    heights, widths = (torch.tensor([level.shape[axis] for level in features]) for axis in (2, 3))
    starts = torch.tensor([0] + [level[:, 0].numel() for level in features]).cumsum(0)
    height, width = heights[levels], widths[levels]
    corners = boxes.nan_to_num() * (1 / torch.tensor(strides, dtype=boxes.dtype))[levels][:, None] - 0.5
    vertical = make_axis(corners[:, 1], corners[:, 3], size, height)
    horizontal = make_axis(corners[:, 0], corners[:, 2], size, width)
    start = starts[levels] + image * height * width
    pooled, order = [], []
    for part in products(vertical, horizontal, start, height, width):
        offsets = part.per_cell.cumsum(0) - part.per_cell
        weights = part.weights.to(table.dtype)
        pooled.append(F.embedding_bag(part.rows, table, offsets, mode="sum", per_sample_weights=weights))
        order.append(part.rois)
    out = torch.cat(pooled).view(-1, size, size, channels)[torch.cat(order).argsort()]
    return out.permute(0, 3, 1, 2).to(dtype)


def make_axis(low: Tensor, high: Tensor, size: int, length: Tensor) -> Axis:
    """Weights along one axis of RoIs from `low` to `high` (R,), in cells of maps of `length` (R,).

    An output cell averages ceil(extent / S) samples; one that lies more than a cell outside the map is zero, and the
    border is repeated up to there.
    """
    samples = torch.ceil((high - low) / size).clamp(min=0)
    step = ((high - low) / size)[:, None, None]
    most = max(1, int(samples.max()))
    samples = samples[:, None, None]
    within = torch.arange(most, dtype=low.dtype)
    at = low[:, None, None] + torch.arange(size, dtype=low.dtype)[:, None] * step
    at = at + (within + 0.5) * step / samples.clamp(min=1)
    last = length[:, None, None] - 1
    used = (within < samples) & (at >= -1) & (at <= last + 1)
    at = torch.minimum(at.clamp(min=0), last.to(at.dtype))
    cell = at.floor()
    first = cell[..., :1]
    share = used / samples.clamp(min=1)
    position = (cell - first).long().clamp(max=most - 1)  # samples beyond the RoI's own have weight 0
    weights = at.new_zeros(len(low), size, most + 1)
    weights.scatter_add_(2, position, (1 - (at - cell)) * share)
    weights.scatter_add_(2, position + 1, (at - cell) * share)
    return Axis(samples[:, 0, 0].long().clamp(min=1) + 1, first[..., 0].long(), weights)


def products(vertical: Axis, horizontal: Axis, start: Tensor, height: Tensor, width: Tensor) -> Iterator[Products]:
    """List what is to be summed, RoIs with equally many map cells together; `start` (R,) is their map's table row."""
    size = vertical.first.shape[1]
    widest = int(horizontal.count.max()) + 1
    kinds, kind_of_roi, sizes = torch.unique(
        vertical.count * widest + horizontal.count, return_inverse=True, return_counts=True
    )
    waiting: list[Products] = []
    for kind, members in zip(kinds.tolist(), kind_of_roi.argsort().split(sizes.tolist()), strict=True):
        tall, wide = divmod(kind, widest)
        for rois in members.split(max(1, PRODUCTS_AT_ONCE // (size * size * tall * wide))):
            y = torch.minimum(vertical.first[rois][..., None] + torch.arange(tall), height[rois, None, None] - 1)
            x = torch.minimum(horizontal.first[rois][..., None] + torch.arange(wide), width[rois, None, None] - 1)
            y = y * width[rois, None, None] + start[rois, None, None]
            rows = y[:, :, None, :, None] + x[:, None, :, None, :]
            weights = vertical.weights[rois, :, None, :tall, None] * horizontal.weights[rois, None, :, None, :wide]
            per_cell = torch.full((len(rois) * size * size,), tall * wide)
            waiting.append(Products(rois, rows.flatten(), weights.flatten(), per_cell))
            if sum(len(part.rows) for part in waiting) >= PRODUCTS_AT_ONCE:
                yield _joined(waiting)
                waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[Products]) -> Products:
    return Products(*(torch.cat(column) for column in zip(*parts, strict=True)))
