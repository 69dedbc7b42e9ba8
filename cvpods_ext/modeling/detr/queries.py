"""Two-stage query selection: every token proposes a box, and the best tokens start the queries (Deformable DETR,
https://arxiv.org/abs/2010.04159, section 4.2; mixed selection of DINO, https://arxiv.org/abs/2203.03605, section 3.4).

Shapes: N = images, T = tokens of all levels, Q = queries, C = classes, E = width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cvpods_ext.modeling.detr.boxes import inverse_sigmoid
from cvpods_ext.modeling.detr.position import Levels

_ANCHOR_SIDE = 0.05  # of the image, on the finest level; doubles with every level
_MARGIN = 0.01  # anchors closer to the border, or smaller, are not used


class Proposals(NamedTuple):
    """What the best tokens of each image propose, best first.

    logits (N, Q, C) and boxes (N, Q, 4) (centre, size in [0, 1]) are a prediction with a loss of its own, made from
    the `states` (N, Q, E); `index` (N, Q) says which tokens they are.
    """

    logits: Tensor
    boxes: Tensor
    states: Tensor
    index: Tensor


def anchor_logits(levels: Levels) -> Tensor:
    """One anchor per token, as logits of centre and size in the image without padding: (N, T, 4).

    All four are infinite for tokens in the padding and for anchors too near to the border: the box of such a token is
    (1, 1, 1, 1), whatever is added, and has no gradient.
    """
    centres = levels.centres()
    sides = [
        centres.new_full((rows * columns,), _ANCHOR_SIDE * 2.0**level)
        for level, (rows, columns) in enumerate(levels.sizes)
    ]
    anchors = torch.cat((centres, torch.cat(sides)[:, None].expand(len(centres), -1, 2)), dim=-1)
    inside = ((anchors > _MARGIN) & (anchors < 1 - _MARGIN)).all(dim=-1) & ~levels.flat_padding
    return (anchors / (1 - anchors)).log().masked_fill(~inside[..., None], torch.inf)


def best_tokens(logits: Tensor, count: int) -> Tensor:
    """(N, T, C) -> (N, Q) indices of the tokens with the highest score of any class, best first; Q = min(count, T).

    Tokens without an anchor are not excluded: all share one vector and so one score, which the others should exceed.
    """
    return logits.amax(dim=-1).topk(min(count, logits.shape[1]), dim=1).indices


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """(N, T, K), (N, Q) -> (N, Q, K)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def refine(box_head: nn.Module, states: Tensor, references: Tensor) -> Tensor:
    """Boxes relative to references, both (..., 4) centre and size in [0, 1]."""
    return (box_head(states) + inverse_sigmoid(references)).sigmoid()
