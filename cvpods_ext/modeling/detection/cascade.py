"""Cascade R-CNN (https://arxiv.org/abs/1712.00726): each stage refines the boxes of the one before.

Shapes: N = images, R = RoIs of the batch, C = foreground classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cvpods_ext.modeling.detection.anchor_matching import PaddedTargets
from cvpods_ext.modeling.detection.box_stage import BoxStage
from cvpods_ext.modeling.detection.mask_head import MaskHead
from cvpods_ext.modeling.detection.postprocess import RawDetections, Selection
from cvpods_ext.modeling.detection.roi_heads import ScoredBoxes, mask_branch_loss, select_per_image, with_masks
from cvpods_ext.modeling.detection.roi_sampling import RoISampler, relabel
from cvpods_ext.modeling.detection.rpn import Proposals
from cvpods_ext.modeling.layers import trains
from cvpods_ext.structures import Targets
from cvpods_ext.structures import boxes as box_ops


class CascadeRoIHeads(nn.Module):
    """Box stages of rising IoU demand and finer regression, one mask head.

    A stage labels all boxes that the one before refined. Each sends 1 / stages of its gradient into the pyramid. At
    test time the stages' scores are averaged and the boxes are the last one's.
    """

    def __init__(
        self,
        stages: Sequence[BoxStage],
        iou_thresholds: Sequence[float],
        mask_head: MaskHead | None,
        sampler: RoISampler,
        selection: Selection,
    ) -> None:
        super().__init__()
        assert len(stages) == len(iou_thresholds), "one IoU threshold per stage"
        assert sampler.iou_threshold == iou_thresholds[0], "the first stage is sampled at its own threshold"
        self.box_head = nn.ModuleList([stage.head for stage in stages])
        self.box_predictor = nn.ModuleList([stage.predictor for stage in stages])
        self.classification_loss = nn.ModuleList([stage.loss for stage in stages])
        self.mask_head = mask_head
        self.stages = tuple(stages)
        self.iou_thresholds = tuple(iou_thresholds)
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
        """loss_cls_stage0, loss_box_reg_stage0, ... and loss_mask, those that reach a parameter that trains."""
        sampled = self.sampler(proposals, truth)
        rois = sampled.to(image_sizes.device)
        losses: dict[str, Tensor] = {}
        last = len(self.stages) - 1
        for k, stage in enumerate(self.stages):
            of_stage, boxes = stage.train(
                features,
                rois,
                targets,
                trunk_trains=trunk_trains,
                refine=k < last,
                gradient_scale=1 / len(self.stages),
            )
            losses |= {f"{name}_stage{k}": loss for name, loss in of_stage.items()}
            if k < last:
                boxes = box_ops.clip_to(boxes, image_sizes[rois.image])
                keep = box_ops.nonempty(boxes).nonzero()[:, 0]
                rois = relabel(
                    boxes[keep],
                    rois.image[keep],
                    truth,
                    num_classes=self.sampler.num_classes,
                    iou_threshold=self.iou_thresholds[k + 1],
                )
        if self.mask_head is not None and (trunk_trains or trains(self.mask_head)):
            losses["loss_mask"] = mask_branch_loss(self.mask_head, features, sampled, targets, self.sampler.num_classes)
        return losses

    def detect(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> list[RawDetections]:
        """Detections per image, in the pixels of the network's input; masks only for the final boxes."""
        scored = self.score(features, proposals, image_sizes)
        found = select_per_image(self.stages[-1], scored, image_sizes, self.selection)
        if self.mask_head is not None:
            found = with_masks(self.mask_head, features, found, self.selection)
        return found

    def score(self, features: Sequence[Tensor], proposals: Proposals, image_sizes: Tensor) -> ScoredBoxes:
        """The boxes that reach the last stage, with the mean of the class scores of all stages."""
        image, column = proposals.valid.nonzero(as_tuple=True)
        boxes = proposals.boxes[image, column]
        pooled, total = self.stages[0].classify(features, boxes, image)
        scores = total
        for previous, stage in zip(self.stages, self.stages[1:], strict=False):
            boxes = previous.decode(pooled, boxes, scores.argmax(dim=1))
            boxes = box_ops.clip_to(boxes, image_sizes[image])
            pooled, scores = stage.classify(features, boxes, image)
            total = total + scores
        return ScoredBoxes(boxes, image, pooled, total * (1 / len(self.stages)))
