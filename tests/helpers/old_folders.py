"""Project folders in the style of cvpods, written for these tests, and a data root that has the names they ask for."""

import json
from pathlib import Path

from PIL import Image

from cvpods_ext.data import category_tables

CONFIG = """
import os.path as osp

from cvpods.configs.rcnn_fpn_config import RCNNFPNConfig
{imports}
_config_dict = dict(
    MODEL=dict(
        WEIGHTS={weights!r},
        MASK_ON=True,
        RESNETS=dict(DEPTH=18),
        FPN=dict(OUT_CHANNELS=16),
        RPN=dict(PRE_NMS_TOPK_TRAIN=60, POST_NMS_TOPK_TRAIN=40, PRE_NMS_TOPK_TEST=60, POST_NMS_TOPK_TEST=20),
        ROI_HEADS=dict(NUM_CLASSES={classes}, SCORE_THRESH_TEST=0.0001, BATCH_SIZE_PER_IMAGE=32),
        ROI_BOX_HEAD=dict(FC_DIM=32{box}),
        ROI_MASK_HEAD=dict(NUM_CONV=1, CONV_DIM=16),
        {model}
    ),
    DATASETS=dict(TRAIN=("lvis_v1_train",), TEST=("lvis_v1_val",)),
    DATALOADER=dict({loader}),
    SOLVER=dict(
        LR_SCHEDULER=dict(STEPS=(120000, 160000), MAX_ITER=180000),
        OPTIMIZER=dict(BASE_LR=0.02),
        IMS_PER_BATCH=16,
        IMS_PER_DEVICE=2,
    ),
    INPUT=dict(
        AUG=dict(
            TRAIN_PIPELINES=[
                ("ResizeShortestEdge", dict(short_edge_length=(640, 800), max_size=1333, sample_style="choice")),
                ("RandomFlip", dict()),
            ],
            TEST_PIPELINES=[
                ("ResizeShortestEdge", dict(short_edge_length=800, max_size=1333, sample_style="choice")),
            ],
        )
    ),
    TEST=dict(DETECTIONS_PER_IMAGE=300),
    OUTPUT_DIR=osp.join("/data/Outputs/model_logs", osp.split(osp.realpath("."))[-1]),
)


class MaskRCNNConfig(RCNNFPNConfig):
    def __init__(self):
        super().__init__()
        self._register_configuration(_config_dict)


config = MaskRCNNConfig()
{after}
"""

NET = """
from cvpods.layers import ShapeSpec
from cvpods.modeling.backbone import Backbone
from cvpods.modeling.backbone.fpn import build_resnet_fpn_backbone
from cvpods.modeling.meta_arch.rcnn import GeneralizedRCNN
from cvpods.modeling.proposal_generator import RPN
from cvpods.modeling.roi_heads import StandardROIHeads
from cvpods.modeling.roi_heads.box_head import FastRCNNConvFCHead
from cvpods.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
{imports}

def build_backbone(cfg, input_shape=None):
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    backbone = build_resnet_fpn_backbone(cfg, input_shape)
    assert isinstance(backbone, Backbone)
    return backbone


def build_proposal_generator(cfg, input_shape):
    return RPN(cfg, input_shape)


def build_roi_heads(cfg, input_shape):
    heads = {heads}(cfg, input_shape)
    {change}
    return heads


def build_box_head(cfg, input_shape):
    return FastRCNNConvFCHead(cfg, input_shape)


def build_mask_head(cfg, input_shape):
    return MaskRCNNConvUpsampleHead(cfg, input_shape)


def build_model(cfg):
    cfg.build_backbone = build_backbone
    cfg.build_proposal_generator = build_proposal_generator
    cfg.build_roi_heads = build_roi_heads
    cfg.build_box_head = build_box_head
    cfg.build_mask_head = build_mask_head
    model = GeneralizedRCNN(cfg)
    {freeze}
    return model
"""

COSINE_CHANGE = """heads.box_predictor = CosineFastRCNNOutputLayers(
        heads.box_head.output_size,
        cfg.MODEL.ROI_HEADS.NUM_CLASSES,
        cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG,
        scale_mode=cfg.MODEL.ROI_BOX_HEAD.COSINE_SCALE_MODE,
        scale_init=cfg.MODEL.ROI_BOX_HEAD.COSINE_SCALE_INIT,
    )"""

ALIGNED_HEADS = """
import torch

from cvpods.layers import ShapeSpec
from cvpods.modeling.poolers import ROIPooler
from cvpods.modeling.roi_heads import StandardROIHeads
from cvpods.modeling.roi_heads.{module} import DisAlign{kind}FastRCNNOutputLayers
from cvpods.structures import Boxes, Instances

from .fast_rcnn import AlignedOutputs


class AlignedHeads(StandardROIHeads):
    def _init_box_head(self, cfg):
        self.grw_scale = cfg.MODEL.ROI_BOX_HEAD.GRW_SCALE
        box = cfg.MODEL.ROI_BOX_HEAD
        self.train_on_pred_boxes = box.TRAIN_ON_PRED_BOXES
        channels = [self.feature_channels[name] for name in self.in_features]
        assert len(set(channels)) == 1
        self.box_pooler = ROIPooler(
            output_size=box.POOLER_RESOLUTION,
            scales=tuple(1.0 / self.feature_strides[name] for name in self.in_features),
            sampling_ratio=box.POOLER_SAMPLING_RATIO,
            pooler_type=box.POOLER_TYPE,
        )
        side = box.POOLER_RESOLUTION
        self.box_head = cfg.build_box_head(cfg, ShapeSpec(channels=channels[0], height=side, width=side))
        self.box_predictor = DisAlign{kind}FastRCNNOutputLayers(
            self.box_head.output_size, self.num_classes, self.cls_agnostic_bbox_reg
        )

    def _forward_box(self, features, proposals):
        assert all(isinstance(one, Instances) for one in proposals)
        pooled = self.box_pooler(features, [one.proposal_boxes for one in proposals])
        logits, deltas = self.box_predictor(self.box_head(pooled))
        outputs = AlignedOutputs(
            self.box2box_transform, logits, deltas, proposals, self.smooth_l1_beta, self.grw_scale
        )
        if self.training:
            if self.train_on_pred_boxes:
                with torch.no_grad():
                    for one, boxes in zip(proposals, outputs.predict_boxes_for_gt_classes()):
                        one.proposal_boxes = Boxes(boxes)
            return outputs.losses()
        found, _ = outputs.inference(
            self.test_score_thresh, self.test_nms_thresh, self.test_nms_type, self.test_detections_per_img
        )
        return found
"""

ALIGNED_OUTPUTS = """
import json
import logging

import torch
import torch.nn.functional as F

import cvpods
from cvpods.configs.config_helper import find_key
from cvpods.modeling.roi_heads.fast_rcnn import FastRCNNOutputs

logger = logging.getLogger(__name__)


class AlignedOutputs(FastRCNNOutputs):
    def __init__(self, box2box_transform, logits, deltas, proposals, smooth_l1_beta, grw_scale):
        super().__init__(box2box_transform, logits, deltas, proposals, smooth_l1_beta)
        root = cvpods.__path__[0]
        root = root[: root.rfind("/")]
        counts = json.load(open(root + "/datasets/lvis/num_shots_v1.0.json"))[1::2]
        counts = torch.tensor(counts, dtype=torch.float64)
        weight = (counts / counts.sum()) ** -grw_scale
        weight = weight / weight.sum() * len(weight)
        self.weight = torch.cat((weight, torch.ones(1))).float().to(logits.device)

    def softmax_cross_entropy_loss(self):
        if self._no_instances:
            return 0.0 * self.pred_class_logits.sum()
        self._log_accuracy()
        return F.cross_entropy(self.pred_class_logits, self.gt_classes, weight=self.weight, reduction="mean")
"""

FREEZE = """for part in (model.backbone, model.proposal_generator, model.roi_heads):
        for parameter in part.parameters():
            parameter.requires_grad = False
    for name, parameter in model.roi_heads.box_predictor.named_parameters():
        if name in ("logit_scale", "logit_bias") or name.startswith("confidence_layer"):
            parameter.requires_grad = True
    so"""

CHECK = """

def check_checkpoint(path):
    plain = osp.join(osp.dirname(path), "plain_" + osp.basename(path))
    assert osp.exists(path), path + " is missing"
    checkpoint = torch.load(path)
    if "optimizer" in checkpoint:
        del checkpoint["optimizer"], checkpoint["scheduler"], checkpoint["iteration"]
    torch.save(checkpoint, plain)


check_checkpoint("../{first}/log/model_final.pth")
"""


def _write(folder: Path, net: dict[str, str] | None = None, **config: object) -> Path:
    folder.mkdir(parents=True)
    blank = dict(imports="", box="", model="", loader="", after="", weights="", classes=1203)
    (folder / "config.py").write_text(CONFIG.format(**{**blank, **config}))
    parts = dict(imports="", heads="StandardROIHeads", change="pass", freeze="pass")
    (folder / "net.py").write_text(NET.format(**{**parts, **(net or {})}))
    (folder / "README.md").write_text("written by hand\n")
    return folder


def plain(folder: Path, **config: object) -> Path:
    """Mask R-CNN as it is; `config` fills the places of the config file."""
    return _write(folder, **config)


def repeated(folder: Path) -> Path:
    """With repeat-factor sampling."""
    return _write(folder, loader='SAMPLER_TRAIN="RepeatFactorTrainingSampler", REPEAT_THRESHOLD=0.001')


def cosine(folder: Path) -> Path:
    """With a predictor that is replaced from outside, imported as the folders of LVIS 1.0 do."""
    imports = "from cvpods.modeling.roi_heads.fast_rcnn import CosineFastRCNNOutputLayers\n"
    box = ', COSINE_SCALE_MODE="learn", COSINE_SCALE_INIT=20.0'
    return _write(folder, dict(imports=imports, change=COSINE_CHANGE), box=box)


def aligned(folder: Path, first: str, kind: str = "", module: str = "disalign_fast_rcnn") -> Path:
    """A second stage: heads in a namespace package, frozen parts, a look at the first stage's checkpoint at import."""
    imports = "from roi_heads.roi_heads import AlignedHeads\n"
    _write(
        folder,
        dict(imports=imports, heads="AlignedHeads", freeze=FREEZE),
        imports="import torch\n",
        box=", GRW_SCALE=0.8",
        weights=f"../{first}/log/plain_model_final.pth",
        model="BACKBONE=dict(FREEZE=True), PROPOSAL_GENERATOR=dict(FREEZE=True)",
        after=CHECK.format(first=first),
    )
    (folder / "roi_heads").mkdir()
    (folder / "roi_heads" / "roi_heads.py").write_text(ALIGNED_HEADS.format(module=module, kind=kind))
    (folder / "roi_heads" / "fast_rcnn.py").write_text(ALIGNED_OUTPUTS)
    return folder


def data_root(root: Path, images: int = 6, side: int = 96) -> Path:
    """A root `datasets` with LVIS 1.0 in miniature: all 1,203 categories, `images` pictures a split."""
    categories = [
        {"id": one.id, "name": one.name, "frequency": one.frequency, "synset": one.name, "image_count": 1}
        for one in category_tables.load("lvis_v1_train")
    ]
    (root / "lvis").mkdir(parents=True)
    for number, split in enumerate(("train", "val")):
        folder = root / "coco" / f"{split}2017"
        folder.mkdir(parents=True)
        pictures, annotations = [], []
        for i in range(1, images + 1):
            width, height = (side, side * 3 // 4) if i % 2 else (side * 3 // 4, side)
            image = Image.new("RGB", (width, height), (20 * i % 256, 90, 160))
            for j in range(2):
                x, y = 8 + 30 * j, 10 + 6 * j
                corners = [x, y, x + 24, y, x + 24, y + 28, x, y + 28]
                image.paste((200, 30 * i % 256, 40 + 90 * j), (x, y, x + 24, y + 28))
                annotations.append(
                    dict(id=len(annotations) + 1, image_id=i, category_id=3 + 7 * ((i + j) % 4), area=24.0 * 28,
                         bbox=[x, y, 24, 28], segmentation=[corners])
                )  # fmt: skip
            name = f"{1000 * number + i:012d}.png"
            image.save(folder / name)
            url = f"http://images.cocodataset.org/{split}2017/{name}"
            verified = dict(neg_category_ids=[], not_exhaustive_category_ids=[])
            pictures.append(dict(id=i, width=width, height=height, coco_url=url, **verified))
        content = dict(images=pictures, annotations=annotations, categories=categories)
        (root / "lvis" / f"lvis_v1_{split}.json").write_text(json.dumps(content))
    return root
