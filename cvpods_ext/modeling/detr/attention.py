"""Attention of the transformer: multi-scale deformable attention, and self-attention among queries.

Shapes: N = images, Q = queries, T = tokens of all levels, L = levels, M = heads, P = points per level, E = width,
D = E / M. A location is (x, y) in [0, 1] of the padded map, continuous: the centre of the first cell of W is 0.5 / W.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cvpods_ext.modeling.detr.position import MapSize


class DeformableAttention(nn.Module):
    """Each query looks at a few learned places around its reference (Deformable DETR, https://arxiv.org/abs/2010.04159,
    equation 3).

    Starts with one direction per head and one step further per point, all of one weight.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)

    def reset_parameters(self) -> None:
        """Initial values of the paper, appendix A.4."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float32)
        offsets = (directions[:, None, None] * steps[:, None]).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        for zero in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(zero)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, query: Tensor, references: Tensor, tokens: Tensor, padding: Tensor, sizes: Sequence[MapSize]
    ) -> Tensor:
        """Attended values without the identity, (N, Q, E).

        Args:
            query: (N, Q, E), position included.
            references: (N, Q, L, 2) points, or (N, Q, L, 4) boxes (centre, size) whose size scales the offsets.
            tokens: (N, T, E) values, levels of `sizes` one after the other.
            padding: (N, T) bool, true where a token lies outside its image; its projected value counts as 0.
        """
        value = self.value_proj(tokens).masked_fill(padding[..., None], 0.0).unflatten(2, (self.heads, -1))
        shape = (self.heads, self.levels, self.points)
        offsets = _full_precision(self.sampling_offsets(query)).unflatten(2, (*shape, 2))
        weights = _full_precision(self.attention_weights(query)).unflatten(2, (self.heads, -1)).softmax(dim=-1)
        places = references[:, :, None, :, None]
        if references.shape[-1] == 4:
            offsets = offsets / self.points * places[..., 2:] * 0.5
        else:
            offsets = offsets / offsets.new_tensor([(w, h) for h, w in sizes])[:, None]
        attended = sample_levels(value, sizes, places[..., :2] + offsets, weights.unflatten(3, shape[1:]))
        return self.output_proj(attended.to(query.dtype))


def sample_levels(value: Tensor, sizes: Sequence[MapSize], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples over all levels and points, zero outside the maps.

    value (N, T, M, D), locations (N, Q, M, L, P, 2), weights (N, Q, M, L, P) -> (N, Q, M * D). Only one level's
    intermediate values exist at a time: for gradients they are computed again.
    """
    output = torch.zeros((), device=value.device)
    levels = value.split([rows * columns for rows, columns in sizes], dim=1)
    for level, (map_, size) in enumerate(zip(levels, sizes, strict=True)):
        inputs = (map_, size, locations[:, :, :, level], weights[:, :, :, level])
        if torch.is_grad_enabled():
            output = output + checkpoint(_sample_level, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            output = output + _sample_level(*inputs)
    return output


def _sample_level(map_: Tensor, size: MapSize, locations: Tensor, weights: Tensor) -> Tensor:
    """`sample_levels` for one level: (N, H * W, M, D), (N, Q, M, P, 2), (N, Q, M, P) -> (N, Q, M * D).

    A sample mixes four cells, so the result is a weighted sum of rows of a table with N * H * W * M rows.
    """
    images, cells, heads, width = map_.shape
    rows, columns = size
    queries = locations.shape[1]
    device = map_.device
    first = torch.arange(images, dtype=torch.int32, device=device)[:, None] * (cells * heads)
    first = (first + torch.arange(heads, dtype=torch.int32, device=device)).view(images, 1, heads, 1)
    across = _neighbours(locations[..., 0], columns)
    down = [(first + row * (columns * heads), weights * share) for row, share in _neighbours(locations[..., 1], rows)]
    index = torch.cat([row + column * heads for row, _ in down for column, _ in across], dim=-1)
    shares = torch.cat([above * left for _, above in down for _, left in across], dim=-1)
    table = _full_precision(map_).reshape(-1, width)
    summed = _WeightedRows.apply(table, index.flatten(0, 2), shares.flatten(0, 2).to(table.dtype))
    return summed.view(images, queries, heads * width)


def _full_precision(x: Tensor) -> Tensor:
    """Half precision as float32: a place needs more than eleven bits, and so does a sum over many of them."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _neighbours(place: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    """The two cells of an axis that a sample mixes: index, int32, and share; outside 0 and some cell that exists."""
    position = place * size - 0.5
    low = position.detach().floor()
    beyond = position - low
    pairs = []
    for cell, share in ((low, 1 - beyond), (low + 1, beyond)):
        inside = (cell >= 0) & (cell < size)
        # what is not finite lies outside as well, so that no index leaves the table
        pairs.append((torch.where(inside, cell, 0.0).int(), torch.where(inside, share, 0.0)))
    return pairs


class _WeightedRows(torch.autograd.Function):
    """table (R, D), index (B, K) int32, weights (B, K) -> (B, D) with row b = sum over k of weight * table[index].

    The rows are never gathered. The gradient of the table is the same sum over the transposed index, which is several
    times faster than adding rows one by one, and whose order of summation does not change from run to run.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, weights)
        return F.embedding_bag(index, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, index, weights = ctx.saved_tensors
        grad = grads[0].contiguous()
        for_table = for_weights = None
        if ctx.needs_input_grad[0]:
            for_table = _transposed_sum(grad, index, weights, len(table))
        if ctx.needs_input_grad[2]:
            with torch.enable_grad():
                weights = weights.detach().requires_grad_()
                output = F.embedding_bag(index, table.detach(), mode="sum", per_sample_weights=weights)
            (for_weights,) = torch.autograd.grad(output, weights, grad)
        return for_table, None, for_weights


def _transposed_sum(grad: Tensor, index: Tensor, weights: Tensor, rows: int) -> Tensor:
    """(B, D), (B, K), (B, K) -> (rows, D): row r = sum of weight * grad[b] over all b, k with index[b, k] = r."""
    ordered, order = index.flatten().sort(stable=True)
    starts = torch.searchsorted(ordered, torch.arange(rows, dtype=ordered.dtype, device=ordered.device))
    source = torch.div(order, index.shape[1], rounding_mode="floor")
    return F.embedding_bag(source, grad, starts, mode="sum", per_sample_weights=weights.flatten()[order])


class SelfAttention(nn.Module):
    """Attention of queries among themselves; positions take part in the comparison and not in the values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, content: Tensor, position: Tensor, blocked: Tensor | None) -> Tensor:
        """(N, Q, E), (N, Q, E), blocked (Q, Q) bool or None -> (N, Q, E) without the identity."""
        placed = content + position
        return self.attn(placed, placed, content, attn_mask=blocked, need_weights=False)[0]
