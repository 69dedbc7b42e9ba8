"""The few starting points that experiment folders change.

Recipe values of the LVIS bases: DisAlign (Zhang et al., CVPR 2021) and its published folders; 16 images per step,
learning rate 0.02, multi-scale training.
"""

from __future__ import annotations

from cvpods_ext.config.decay import MultiStep
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.override import override
from cvpods_ext.config.schema import DatasetFiles

MSRA_R50 = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
MSRA_R101 = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"

# Caffe2 models of BGR images with the stride in the 3x3 convolutions. It wants its images divided by the
# deviations.
X101_32X8D = "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl"
X101_32X8D_STD = (57.375, 57.12, 58.395)

# What DisAlign adds to a box predictor, in a cascade to that of every stage: all that its second stage trains.
DISALIGN_PARAMETERS = (
    r"roi_heads\.box_predictor\.(\d\.)?logit_scale",
    r"roi_heads\.box_predictor\.(\d\.)?logit_bias",
    r"roi_heads\.box_predictor\.(\d\.)?confidence_layer\.(weight|bias)",
)

# All that a second stage with a new classifier trains.
CLASSIFIER_PARAMETERS = (r"roi_heads\.box_predictor\.(\d\.)?cls_score\..+",)

# What a cascade on a ResNet pyramid changes in `model`, as in detectron2.
CASCADE = dict(class_agnostic_boxes=True, proposals=(2000, 1000))

MASK_RCNN_LVIS1 = override(
    DetectionConfig(),
    data=dict(train="lvis_v1_train", test="lvis_v1_val"),
    model=dict(init=MSRA_R50),
    schedule=dict(iters=180_000),
)

MASK_RCNN_LVIS05 = override(
    MASK_RCNN_LVIS1,
    data=dict(train="lvis_v0.5_train", test="lvis_v0.5_val"),
    # The published v0.5 models of the first stage were tested without any score threshold.
    model=dict(score_threshold=0.0),
    schedule=dict(iters=90_000),
)

# Second stage: only the calibration is trained, for a twentieth of the first.
DISALIGN_LVIS1 = override(
    MASK_RCNN_LVIS1,
    model=dict(train_only=DISALIGN_PARAMETERS),
    schedule=dict(iters=9_000, decay=MultiStep(drops=(8 / 9,))),
)

DISALIGN_LVIS05 = override(
    MASK_RCNN_LVIS05,
    model=dict(train_only=DISALIGN_PARAMETERS, score_threshold=0.0001),
    schedule=dict(iters=4_500, decay=MultiStep(drops=(8 / 9,))),
)

# The baselines of detectron2 (configs/Base-RCNN-FPN.yaml): 90,000 iterations are its 1x, 270,000 its 3x.
RCNN_COCO = override(
    DetectionConfig(),
    data=dict(train="coco_2017_train", test="coco_2017_val"),
    model=dict(init=MSRA_R50, score_threshold=0.05, detections_per_image=100),
    schedule=dict(iters=90_000),
    test=dict(max_detections=100),
)

# LVIS in a box (pods_data synth) at 96 px, for a network that trains on two CPU cores in minutes: the published
# detector with smaller widths, anchors and numbers of regions.
MINI = override(
    DetectionConfig(),
    data=dict(
        train=DatasetFiles(annotations="lvis/lvis_box_train.json", images="coco"),
        test=DatasetFiles(annotations="lvis/lvis_box_val.json", images="coco"),
        channels="RGB",
        train_sizes=(96,),
        train_max_size=128,
        test_size=96,
        test_max_size=128,
        workers=0,
    ),
    model=dict(
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
        init="experiment:mask_rcnn.narrow.fpn64.box.96.trunk",
        init_skip=("cls_score",),  # every method starts its classifier by itself; the trunk's is one of a softmax
        anchor_sizes=(8, 16, 32, 64, 128),
        anchors_per_image=64,
        proposals_per_level=(200, 100),
        proposals=(100, 60),
        rois_per_image=48,
        box_fc=(256, 256),
        mask_convs=2,
        mask_width=64,
        detections_per_image=100,  # of about four objects; the time of a test is proportional to it
    ),
    schedule=dict(iters=400, warmup_iters=50, batch_size=8, images_per_device=8, clip_norm=5.0),
    checkpoint_every=200,
    picture_every=200,
)
