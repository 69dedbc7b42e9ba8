"""What a prediction costs: classification of all queries, boxes of those that belong to an object.

Shapes: K = predictions (decoder layers, proposals), N = images, Q = queries, C = classes, G = objects of the fullest
image, P = assigned pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvpods_ext.modeling.detr.boxes import generalized_iou, to_corners
from cvpods_ext.modeling.detr.denoising import Denoising
from cvpods_ext.modeling.detr.losses import QueryLoss
from cvpods_ext.modeling.detr.matcher import MatchingCost, Objects, Pairs, PendingPairs, Predictions
from cvpods_ext.modeling.layers import to_device
from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.runtime.dist import mean_over_processes
from cvpods_ext.structures import Targets


@dataclass(frozen=True)
class LossWeights:
    """Of the three losses, the same for every layer."""

    classification: float = 1.0
    box: float = 5.0
    giou: float = 2.0


class Costs(NamedTuple):
    """Each (K,): classification, L1 distance of boxes, 1 - GIoU, all divided by the number of objects."""

    classification: Tensor
    box: Tensor
    giou: Tensor


class Criterion(nn.Module):
    """Losses of all layers: of the last one, of the others (suffix _0, _1, ...), of the proposals (_enc), and again of
    all layers for the denoising queries (_dn, _dn_0, ...).
    """

    def __init__(
        self,
        classification_loss: QueryLoss,
        weights: LossWeights | None = None,
        matching_cost: MatchingCost | None = None,
    ) -> None:
        super().__init__()
        self.classification_loss = classification_loss
        self.weights = weights or LossWeights()
        self.matching_cost = matching_cost or MatchingCost()

    def forward(
        self,
        predictions: Predictions,
        denoised: Predictions,
        denoising: Denoising,
        objects: Objects,
        targets: Sequence[Targets],
    ) -> dict[str, Tensor]:
        """Weighted scalar losses by name; without objects those of boxes and of the denoising queries are 0.

        Args:
            predictions: of every decoder layer, first to last, then of the proposals.
            denoised: of every decoder layer for the `denoising` queries.
            objects: the ground truth that `targets` hold as well.
        """
        device = predictions.boxes.device
        count = mean_over_processes(to_device(torch.tensor([float(sum(objects.counts))]), device))[0].clamp(min=1.0)
        pending = PendingPairs(self.matching_cost(predictions, objects), objects.counts)
        layers = len(denoised.boxes)
        pairs = denoising_pairs(denoising, objects.counts, layers, device)
        of_denoising = self.costs(denoised, pairs, objects, count * max(1, denoising.groups), targets)
        matched = self.costs(predictions, pending.result(), objects, count, targets)
        names = [f"_{layer}" for layer in range(layers - 1)]
        return self._named([*names, "", "_enc"], matched) | self._named(
            [*(f"_dn{n}" for n in names), "_dn"], of_denoising
        )

    def _named(self, suffixes: Sequence[str], costs: Costs) -> dict[str, Tensor]:
        losses = {}
        for k, suffix in enumerate(suffixes):
            losses[f"loss_class{suffix}"] = self.weights.classification * costs.classification[k]
            losses[f"loss_bbox{suffix}"] = self.weights.box * costs.box[k]
            losses[f"loss_giou{suffix}"] = self.weights.giou * costs.giou[k]
        return losses

    def costs(
        self, predictions: Predictions, pairs: Pairs, objects: Objects, count: Tensor, targets: Sequence[Targets]
    ) -> Costs:
        """Unweighted losses; queries without a pair are background."""
        logits, boxes = predictions
        labels = objects.labels.new_full(logits.shape[:3], logits.shape[3])
        at = (pairs.prediction, pairs.image, pairs.query)
        labels = labels.index_put(at, objects.labels[pairs.image, pairs.object])
        image = torch.arange(logits.shape[1], device=logits.device).repeat_interleave(logits.shape[2])
        context = LossContext(image, targets)
        classification = [
            self.classification_loss(one.flatten(0, 1), of.flatten(), context)
            for one, of in zip(logits, labels, strict=True)
        ]
        ours, theirs = boxes[at].float(), objects.boxes[pairs.image, pairs.object]
        distance = F.l1_loss(ours, theirs, reduction="none").sum(dim=1)
        overlap = generalized_iou(to_corners(ours), to_corners(theirs))
        # products, since scattered additions differ from run to run on a GPU
        member = F.one_hot(pairs.prediction, len(logits))
        box, giou = ((values[:, None] * member).sum(dim=0) for values in (distance, 1 - overlap))
        return Costs(torch.stack(classification) / count, box / count, giou / count)


def denoising_pairs(denoising: Denoising, counts: Sequence[int], layers: int, device: torch.device) -> Pairs:
    """The positives of every group with the objects that they were made of, for all layers."""
    rows = [
        (image, 2 * group * denoising.slots + slot, slot)
        for group in range(denoising.groups)
        for image, count in enumerate(counts)
        for slot in range(count)
    ]
    places = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).T.contiguous()
    image, query, slot = to_device(places, device)
    layer = torch.arange(layers, device=device).repeat_interleave(len(rows))
    return Pairs(layer, image.repeat(layers), query.repeat(layers), slot.repeat(layers))
