"""The second stage of R-CNN: classify, refine and segment the proposals.

Shapes: N = images, R = RoIs of the batch, D = feature width, C = foreground classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cvpods_ext.modeling.detection.anchor_matching import PaddedTargets
from cvpods_ext.modeling.detection.box_stage import BoxStage
from cvpods_ext.modeling.detection.mask_head import MaskHead, mask_loss
from cvpods_ext.modeling.detection.mask_scoring import rescore
from cvpods_ext.modeling.detection.postprocess import MASKS_AT_ONCE, RawDetections, Selection, select
from cvpods_ext.modeling.detection.roi_sampling import RoIs, RoISampler, mask_targets
from cvpods_ext.modeling.detection.rpn import Proposals
from cvpods_ext.modeling.layers import to_device, trains
from cvpods_ext.structures import Targets


class ScoredBoxes(NamedTuple):
    """Boxes (R, 4) of images (R,) before the last refinement, their features (R, D) and class scores (R, C)."""

    boxes: Tensor
    image: Tensor
    pooled: Tensor
    scores: Tensor


class RoIHeads(nn.Module):
    """One box stage and, for instance segmentation, one mask head.

    Losses are computed only where something trains that they reach.
    """

    def __init__(self, stage: BoxStage, mask_head: MaskHead | None, sampler: RoISampler, selection: Selection) -> None:
        super().__init__()
        self.box_head = stage.head
        self.box_predictor = stage.predictor
        self.classification_loss = stage.loss
        self.mask_head = mask_head
        self.stage = stage
        self.sampler = sampler
        self.selection = selection

    def losses(
        self,
        features: Sequence[Tensor],
        proposals: Proposals,
        image_sizes: Tensor,
        truth: PaddedTargets,
        targets: Sequence[Targets],
        *,
        trunk_trains: bool,
    ) -> dict[str, Tensor]:
        """loss_cls, loss_box_reg and loss_mask, those that reach a parameter that trains."""
        rois = self.sampler(proposals, truth)
        losses, _ = self.stage.train(features, rois.to(image_sizes.device), targets, trunk_trains=trunk_trains)
        if self.mask_head is not None and (trunk_trains or trains(self.mask_head)):
            losses["loss_mask"] = mask_branch_loss(self.mask_head, features, rois, targets, self.sampler.num_classes)
        return losses

    def score(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> ScoredBoxes:
        """Class scores of the proposals of all images."""
        image, column = proposals.valid.nonzero(as_tuple=True)
        boxes = proposals.boxes[image, column]
        return ScoredBoxes(boxes, image, *self.stage.classify(features, boxes, image))

    def detect(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> list[RawDetections]:
        """Detections per image, in the pixels of the network's input; masks only for the final boxes."""
        found = select_per_image(self.stage, self.score(features, proposals, image_sizes), image_sizes, self.selection)
        if self.mask_head is not None:
            found = with_masks(self.mask_head, features, found, self.selection)
        return found


def select_per_image(
    stage: BoxStage, scored: ScoredBoxes, image_sizes: Tensor, selection: Selection
) -> list[RawDetections]:
    """Detections of each image from the boxes of the batch, refined by `stage`; image sizes (N, 4)."""
    found = []
    for i in range(len(image_sizes)):
        mine = (scored.image == i).nonzero()[:, 0]

        def decode(rows: Tensor, classes: Tensor, mine: Tensor = mine) -> Tensor:
            return stage.decode(scored.pooled[mine[rows]], scored.boxes[mine[rows]], classes)

        found.append(select(scored.scores[mine], decode, image_sizes[i], selection))
    return found


def mask_branch_loss(
    head: MaskHead, features: Sequence[Tensor], rois: RoIs, targets: Sequence[Targets], num_classes: int
) -> Tensor:
    """Mask loss of the foreground among `rois`, which are in host memory.

    The targets are drawn there while a GPU computes the logits.
    """
    foreground = rois.rows((rois.labels < num_classes).nonzero()[:, 0])
    boxes, image, labels, *_ = foreground.to(features[0].device)
    logits = head(features, boxes, image, labels)
    truth = mask_targets(targets, foreground.boxes, foreground.image, foreground.truth_index, head.mask_size)
    return mask_loss(logits, to_device(truth, logits.device))


def with_masks(
    head: MaskHead, features: Sequence[Tensor], found: Sequence[RawDetections], selection: Selection
) -> list[RawDetections]:
    """The detections of a batch with their mask probabilities, rescored by them if `selection` says so."""
    if not selection.maskness_threshold:
        for one, probabilities in zip(found, _mask_probabilities(head, features, found), strict=True):
            one.mask_probabilities = probabilities
        return list(found)
    rescored = []
    for i, one in enumerate(found):
        of_image = [level[i : i + 1] for level in features]

        def masks_of(part: RawDetections, of_image: list[Tensor] = of_image) -> Tensor:
            return _mask_probabilities(head, of_image, [part])[0]

        rescored.append(rescore(one, masks_of, selection))
    return rescored


def _mask_probabilities(
    head: MaskHead, features: Sequence[Tensor], found: Sequence[RawDetections]
) -> tuple[Tensor, ...]:
    """(M, S, S) for each image of a batch."""
    counts = [len(one.labels) for one in found]
    labels = torch.cat([one.labels for one in found])
    image = torch.arange(len(found), device=labels.device).repeat_interleave(torch.tensor(counts, device=labels.device))
    boxes = torch.cat([one.boxes for one in found])
    parts = zip(boxes.split(MASKS_AT_ONCE), image.split(MASKS_AT_ONCE), labels.split(MASKS_AT_ONCE), strict=True)
    return torch.cat([head(features, *part) for part in parts]).sigmoid().split(counts)
