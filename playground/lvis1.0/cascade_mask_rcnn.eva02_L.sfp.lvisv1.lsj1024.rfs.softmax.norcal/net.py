"""EVA-02-L under a simple pyramid, cascaded softmax heads, shifted by class counts at test time."""

from functools import partial

from cvpods_ext.config import Config
from cvpods_ext.data.num_shots import image_counts
from cvpods_ext.modeling.assemble import cascade_mask_rcnn_fpn
from cvpods_ext.modeling.backbones.eva02 import eva02
from cvpods_ext.modeling.calibration import calibrated
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.modeling.posthoc import LogitShift, norcal
from cvpods_ext.modeling.rcnn import RCNN
from cvpods_ext.modeling.vitdet_heads import BOX_FEATURES, VITDET


def build_model(cfg: Config) -> RCNN:
    """Build the detector that config.py trains."""
    counts = image_counts(cfg.data, cfg.folder)
    net = eva02(
        "L",
        image_side=cfg.data.lsj_side,
        window=16,
        global_blocks=(5, 11, 17, 23),
        drop_path=0.4,
    )
    return cascade_mask_rcnn_fpn(
        cfg.model,
        num_classes=len(counts),
        backbone=SimplePyramid(net),
        classifier=partial(
            calibrated,
            partial(LogitShift, shift=norcal(counts)),
            partial(LinearClassifier, BOX_FEATURES, len(counts)),
        ),
        recipe=VITDET,
    )
