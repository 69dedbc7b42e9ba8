"""A loss, a classifier, a calibration, a sampler, a backbone and a detector combine, or building says why they do not.

The grid of building is complete; of running, every loss, classifier and calibration that fit, with samplers, backbones
and detectors by turns.
"""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
from loss_cases import LOSSES
from tiny_dataset import write_dataset

from cvpods_ext.config import override
from cvpods_ext.config.detection import DetectionConfig, Detector
from cvpods_ext.data.detection_loader import training_batches
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.backbones.vit import ViT
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import CosineClassifier, LinearClassifier, NormalizedClassifier
from cvpods_ext.modeling.detection.build import (
    BoxBranch,
    CascadeBoxBranch,
    cascade_mask_rcnn_fpn,
    faster_rcnn_fpn,
    mask_rcnn_fpn,
)
from cvpods_ext.modeling.necks.fpn import FPN
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.modeling.posthoc import ExactLogN, LogitShift, RunningLogN, norcal
from cvpods_ext.structures import Batch

COUNTS = torch.tensor([300.0, 9.0])  # of the two classes of the tiny data set
NUM_CLASSES, FEATURES = len(COUNTS), 16
TINY = Detector(
    anchor_sizes=(8, 16, 32, 64, 128),
    rois_per_image=16,
    anchors_per_image=32,
    proposals_per_level=(20, 20),
    proposals=(16, 12),
    box_fc=(FEATURES, FEATURES),
    mask_width=8,
    mask_convs=1,
    score_threshold=0.0,
    detections_per_image=5,
)
STAGES = (Stage(1, 8, 8), Stage(1, 8, 8), Stage(1, 16, 16), Stage(1, 16, 16))

CLASSIFIERS = {"linear": LinearClassifier, "cosine": CosineClassifier, "normalised": NormalizedClassifier}
CALIBRATIONS = {
    "none": None,
    "DisAlign": DisAlign,
    "logit shift": partial(LogitShift, shift=norcal(COUNTS)),
    "LogN": partial(RunningLogN, num_classes=NUM_CLASSES),
    "exact LogN": partial(ExactLogN, num_classes=NUM_CLASSES),
}
BACKBONES = {
    "ResNet": lambda: FPN(ResNet(STAGES, stem_channels=8, bottleneck=False, norm="BN", freeze_at=0), channels=8),
    "ResNeXt": lambda: FPN(
        ResNet(STAGES, stem_channels=8, groups=2, stride_in_1x1=False, norm="BN", freeze_at=0), channels=8
    ),
    "ViT": lambda: SimplePyramid(ViT(8, [], image_side=64, pretrained_grid=4), channels=8),
}
SAMPLERS = ("uniform", "repeat_factor", "instance_repeat_factor")
DETECTORS = ("faster", "mask", "cascade")

SOFTMAX = {"softmax", "grw", "balanced softmax"}  # over classes and background
OWN_SOFTMAX = {"seesaw", "bags"}  # several, with scores of their own
FITS = {
    "none": set(LOSSES),
    "DisAlign": SOFTMAX | OWN_SOFTMAX,
    "LogN": SOFTMAX | OWN_SOFTMAX,
    "exact LogN": SOFTMAX | OWN_SOFTMAX,
    "logit shift": SOFTMAX,
}
REASONS = {
    "DisAlign": "asks every class by itself with a sigmoid",
    "LogN": "asks every class by itself with a sigmoid",
    "exact LogN": "asks every class by itself with a sigmoid",
    "logit shift": "has none over classes and background",
}
RUNNABLE = [
    (loss, classifier, calibration)
    for calibration, losses in FITS.items()
    for loss in sorted(losses)
    for classifier in CLASSIFIERS
]
# Each run takes the next of these.
CHOICES = list(itertools.product(SAMPLERS, BACKBONES, DETECTORS))


def build(loss, classifier, calibration, backbone, detector):
    make_loss = partial(LOSSES[loss], COUNTS)
    extra = getattr(make_loss(), "extra_logits", 0)
    make = partial(CLASSIFIERS[classifier], FEATURES, NUM_CLASSES, extra_logits=extra)
    calibrate = CALIBRATIONS[calibration]
    if detector == "cascade":
        settings = replace(TINY, class_agnostic_boxes=True)
        box = CascadeBoxBranch(classifier=make, calibration=calibrate, loss=make_loss)
        return cascade_mask_rcnn_fpn(settings, NUM_CLASSES, backbone, box)
    assemble = faster_rcnn_fpn if detector == "faster" else mask_rcnn_fpn
    return assemble(
        TINY, NUM_CLASSES, backbone, BoxBranch(classifier=calibrate(make()) if calibrate else make(), loss=make_loss())
    )


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """A training batch of each sampler."""
    folder = tmp_path_factory.mktemp("tiny")
    files = write_dataset(folder)
    drawn = {}
    for sampler in SAMPLERS:
        data = dict(train=files, sampler=sampler, repeat_threshold=3.0, train_sizes=(48,), train_max_size=64, workers=0)
        config = override(DetectionConfig(), data=data, schedule=dict(batch_size=2, images_per_device=2))
        drawn[sampler] = next(training_batches(config, folder, 0, 0, 1))
    return drawn


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("loss", LOSSES)
def test_building_works_or_says_why_not(loss, calibration):
    with torch.device("meta"):
        backbones = [make() for make in BACKBONES.values()]
        for classifier, backbone, detector in itertools.product(CLASSIFIERS, backbones, ("mask", "cascade")):
            if loss in FITS[calibration]:
                assert build(loss, classifier, calibration, backbone, detector).roi_heads is not None
            else:
                with pytest.raises(ConfigError, match=REASONS[calibration]):
                    build(loss, classifier, calibration, backbone, detector)


@pytest.mark.parametrize(
    ("parts", "sampler", "backbone", "detector"),
    [(parts, *choice) for parts, choice in zip(RUNNABLE, itertools.cycle(CHOICES), strict=False)],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value,
)
def test_what_can_be_built_trains_and_detects(batches, parts, sampler, backbone, detector):
    torch.manual_seed(0)
    batch: Batch = batches[sampler]
    model = build(*parts, BACKBONES[backbone](), detector).train()
    losses = model(batch)
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if detector == "cascade" else [predictors]:
        trained = [p for name, p in predictor.named_parameters() if not name.startswith("bbox_pred")]
        assert trained
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    with torch.inference_mode():
        detections = model.eval()(batch)
    for found in detections:
        assert len(found.labels) > 0
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert ((found.labels >= 0) & (found.labels < NUM_CLASSES)).all()


def test_the_runs_use_every_choice_of_sampler_backbone_and_detector():
    assert len(RUNNABLE) == 3 * (len(LOSSES) + 5 + 5 + 5 + 3) >= len(CHOICES) == 27
