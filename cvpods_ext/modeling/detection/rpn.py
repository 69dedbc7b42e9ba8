"""Region proposal network (Faster R-CNN, https://arxiv.org/abs/1506.01497) on a feature pyramid.

Shapes: N = images, A = anchors per cell, T = anchors of all levels, K = proposals per image (padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.detection.anchor_matching import (
    AnchorMatches,
    PaddedTargets,
    Priorities,
    SampledBoxes,
    match,
    random_priorities,
    sample,
)
from cvpods_ext.modeling.detection.anchors import AnchorGenerator
from cvpods_ext.modeling.detection.box_coding import BoxCoder
from cvpods_ext.modeling.detection.nms import keep_per_level
from cvpods_ext.modeling.layers import Conv2d, init_normal
from cvpods_ext.structures import boxes as box_ops


class Proposals(NamedTuple):
    """Boxes (N, K, 4) with objectness logits (N, K), best first; entries that are not `valid` (N, K) are padding."""

    boxes: Tensor
    logits: Tensor
    valid: Tensor


class RPNHead(nn.Module):
    """Convolutions shared by all levels, then one logit and four deltas per anchor.

    One convolution is called `conv`, several `conv.conv0`, `conv.conv1`, ..., as in published files.
    """

    def __init__(self, channels: int, per_cell: int, *, convs: int = 1) -> None:
        super().__init__()
        hidden = [Conv2d(channels, channels, 3, relu=True) for _ in range(convs)]
        self.conv = hidden[0] if convs == 1 else nn.Sequential()
        for i, layer in enumerate(hidden if convs > 1 else []):
            self.conv.add_module(f"conv{i}", layer)
        self.objectness_logits = Conv2d(channels, per_cell, 1)
        self.anchor_deltas = Conv2d(channels, per_cell * 4, 1)
        for layer in (*hidden, self.objectness_logits, self.anchor_deltas):
            init_normal(layer, std=0.01)

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps (N, C, H, W) -> per level logits (N, H * W * A) and deltas (N, H * W * A, 4)."""
        logits, deltas = [], []
        for map_ in features:
            hidden = self.conv(map_)
            logits.append(self.objectness_logits(hidden).permute(0, 2, 3, 1).flatten(1).float())
            level = self.anchor_deltas(hidden).permute(0, 2, 3, 1)
            deltas.append(level.reshape(len(level), -1, 4).float())
        return logits, deltas


@dataclass(frozen=True)
class ProposalSelection:
    """Boxes of a level that enter suppression, its IoU, and proposals of an image; pairs are (training, test)."""

    per_level: tuple[int, int] = (2000, 1000)
    per_image: tuple[int, int] = (1000, 1000)
    nms_threshold: float = 0.7


@dataclass(frozen=True)
class AnchorSampler:
    """Draws `count` anchors per image to train on, at most `foreground_fraction` of them foreground.

    An anchor is background below the IoU `low`, foreground from `high` on or if none is nearer to an object.
    """

    count: int = 256
    foreground_fraction: float = 0.5
    low: float = 0.3
    high: float = 0.7
    priorities: Priorities = random_priorities

    def __call__(self, anchors: Tensor, truth: PaddedTargets) -> tuple[AnchorMatches, SampledBoxes]:
        """Anchors (T, 4) -> which object each is compared with, and the drawn ones."""
        matches = match(truth, anchors, low=self.low, high=self.high, keep_best=True)
        return matches, sample(matches.label, self.count, self.foreground_fraction, self.priorities)


class RPN(nn.Module):
    """Proposes boxes that may hold an object of any class, and learns to."""

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        anchor_sizes: Sequence[float],
        convs: int,
        selection: ProposalSelection,
        sampler: AnchorSampler,
    ) -> None:
        super().__init__()
        self.anchor_generator = AnchorGenerator(strides, anchor_sizes)
        self.rpn_head = RPNHead(channels, self.anchor_generator.per_cell, convs=convs)
        self.coder = BoxCoder()
        self.selection = selection
        self.sampler = sampler

    def forward(
        self, features: Sequence[Tensor], image_sizes: Tensor, truth: PaddedTargets | None = None
    ) -> tuple[Proposals, dict[str, Tensor]]:
        """Maps of all levels and image sizes (N, 4) -> proposals, and losses if `truth` is given.

        `image_sizes` are width, height, width, height of each image before padding.
        """
        logits, deltas = self.rpn_head(features)
        anchors = self.anchor_generator(features)
        with torch.no_grad():
            proposals = self._propose(logits, deltas, anchors, image_sizes)
        if truth is None:
            return proposals, {}
        return proposals, self._losses(torch.cat(logits, dim=1), torch.cat(deltas, dim=1), torch.cat(anchors), truth)

    def _propose(
        self, logits: list[Tensor], deltas: list[Tensor], anchors: list[Tensor], image_sizes: Tensor
    ) -> Proposals:
        """Best boxes of every level, clipped, suppressed within their level, then the best of the image."""
        selection, phase = self.selection, 0 if self.training else 1
        per_level, per_image = selection.per_level[phase], selection.per_image[phase]
        kept_logits, kept_boxes = [], []
        for logit, delta, anchor in zip(logits, deltas, anchors, strict=True):
            best, where = logit.topk(min(per_level, logit.shape[1]), dim=1)
            chosen = delta.gather(1, where[..., None].expand(-1, -1, 4))
            kept_logits.append(best)
            kept_boxes.append(self.coder.decode(chosen, anchor[where]))
        scores, boxes = torch.cat(kept_logits, dim=1), torch.cat(kept_boxes, dim=1)
        finite = scores.isfinite() & boxes.isfinite().all(dim=2)
        boxes = box_ops.clip_to(boxes.nan_to_num(), image_sizes[:, None])
        scores = scores.masked_fill(~finite, -torch.inf)
        # A box without area meets no other, so it cannot suppress anything before it is dropped.
        valid = finite & ((boxes[..., 2:] - boxes[..., :2]) > 0).all(dim=2)
        valid &= keep_per_level(boxes, scores, [level.shape[1] for level in kept_logits], selection.nms_threshold)
        scores, order = scores.masked_fill(~valid, -torch.inf).topk(min(per_image, scores.shape[1]), dim=1)
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return Proposals(boxes, scores, scores > -torch.inf)

    def _losses(self, logits: Tensor, deltas: Tensor, anchors: Tensor, truth: PaddedTargets) -> dict[str, Tensor]:
        """(N, T), (N, T, 4), (T, 4) -> sums over the sampled anchors, divided by the constant sample size."""
        with torch.no_grad():
            matches, drawn = self.sampler(anchors, truth)
        normalizer = self.sampler.count * len(logits)
        objectness = F.binary_cross_entropy_with_logits(
            logits.gather(1, drawn.index), drawn.foreground.float(), reduction="none"
        )
        losses = {"loss_rpn_cls": (objectness * drawn.valid).sum() / normalizer}
        if truth.labels.shape[1] == 0:
            return losses | {"loss_rpn_loc": deltas.sum() * 0}
        foreground = drawn.foreground[..., None]
        spread = matches.index.gather(1, drawn.index)[..., None].expand(-1, -1, 4)
        wanted = self.coder.encode(anchors[drawn.index], truth.boxes.gather(1, spread))
        wanted = torch.where(foreground, wanted, 0.0)  # other rows may hold infinite targets
        predicted = deltas.gather(1, drawn.index[..., None].expand(-1, -1, 4))
        distance = F.l1_loss(predicted, wanted, reduction="none") * foreground
        return losses | {"loss_rpn_loc": distance.sum() / normalizer}
