"""The box head and the mask head as old folders build them: ours, without the pooling, which is the heads' there."""

from __future__ import annotations

from torch import Tensor

from cvpods_ext.compat.backbone import ShapeSpec
from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.modeling.detection.box_head import BoxHead
from cvpods_ext.modeling.detection.mask_head import MaskHead, MaskPredictor

_UNUSED = (4,)  # strides of a pooler that StandardROIHeads replaces


class FastRCNNConvFCHead(BoxHead):
    """Convolutions and fully connected layers behind the pooling of boxes, of `MODEL.ROI_BOX_HEAD`."""

    def __init__(self, cfg: AttributeDict, input_shape: ShapeSpec) -> None:
        box = cfg.MODEL.ROI_BOX_HEAD
        super().__init__(
            input_shape.channels or 0,
            _UNUSED,
            fc=(box.FC_DIM,) * box.NUM_FC,
            convs=(box.CONV_DIM,) * box.NUM_CONV,
            norm=box.NORM,
            resolution=input_shape.height or 7,
        )

    @property
    def output_size(self) -> int:
        """Width of a box feature."""
        return self.out_features

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Pooled maps (R, C, S, S) -> (R, D)."""
        return self.transform(x)


class MaskRCNNConvUpsampleHead(MaskHead):
    """Convolutions, upsampling and a predictor behind the pooling of instances, of `MODEL.ROI_MASK_HEAD`.

    It is called by StandardROIHeads alone, with the labels whose masks are wanted.
    """

    def __init__(self, cfg: AttributeDict, input_shape: ShapeSpec) -> None:
        mask, classes = cfg.MODEL.ROI_MASK_HEAD, cfg.MODEL.ROI_HEADS.NUM_CLASSES
        super().__init__(
            input_shape.channels or 0,
            _UNUSED,
            MaskPredictor(mask.CONV_DIM, 1 if mask.CLS_AGNOSTIC_MASK else classes),
            width=mask.CONV_DIM,
            convs=mask.NUM_CONV,
            norm=mask.NORM,
            resolution=input_shape.height or 14,
        )
