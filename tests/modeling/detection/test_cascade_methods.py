"""Long-tail methods in a small cascade on EVA-02's transformer, as the folders combine them, and its precision."""

from functools import partial

import pytest
import torch

from cvpods_ext.config import override
from cvpods_ext.config.bases_eva02 import EVA02_LVIS1
from cvpods_ext.modeling.backbones.eva02 import Size, eva02_of
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import (
    CosineClassifier,
    FederatedClassifier,
    LinearClassifier,
    NormalizedClassifier,
)
from cvpods_ext.modeling.detection.build import CascadeBoxBranch, cascade_mask_rcnn_fpn
from cvpods_ext.modeling.detection.mask_head import NormalizedMaskPredictor
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.ecm import EffectiveClassMarginLoss
from cvpods_ext.modeling.losses.federated import FederatedLoss
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.losses.seesaw import SeesawLoss
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.modeling.posthoc import LogitShift, norcal
from cvpods_ext.structures import Batch, PolygonMasks, Targets

CLASSES = 7
COUNTS = torch.tensor([900.0, 400, 90, 30, 8, 3, 1])
LINEAR = partial(LinearClassifier, 16, CLASSES)
NORMALIZED = partial(NormalizedClassifier, 16, CLASSES)
SMALL = dict(
    box_convs=(8,),
    box_fc=(16,),
    mask_width=8,
    mask_convs=1,
    anchor_sizes=(8, 16, 32, 64, 128),
    rois_per_image=16,
    proposals_per_level=(50, 50),
    proposals=(30, 30),
    score_threshold=0.0,
    detections_per_image=12,
)
METHODS = {
    "federated": CascadeBoxBranch(
        classifier=partial(FederatedClassifier, 16, COUNTS), loss=partial(FederatedLoss, COUNTS, 4)
    ),
    "cosine": CascadeBoxBranch(
        classifier=partial(CosineClassifier, 16, CLASSES), loss=partial(FederatedLoss, COUNTS, 4)
    ),
    "softmax": CascadeBoxBranch(loss=SoftmaxCrossEntropy),
    "disalign": CascadeBoxBranch(
        classifier=LINEAR, calibration=DisAlign, loss=partial(GroupReweightedCrossEntropy, COUNTS)
    ),
    "norcal": CascadeBoxBranch(calibration=partial(LogitShift, shift=norcal(COUNTS))),
    "seesaw": CascadeBoxBranch(classifier=partial(NORMALIZED, extra_logits=1), loss=partial(SeesawLoss, CLASSES)),
    "ecm": CascadeBoxBranch(classifier=NORMALIZED, loss=partial(EffectiveClassMarginLoss, COUNTS)),
}


def detector(method="federated", **changes):
    torch.manual_seed(0)
    return cascade_mask_rcnn_fpn(
        override(EVA02_LVIS1, model=SMALL | changes).model,
        num_classes=CLASSES,
        backbone=SimplePyramid(eva02_of(Size(16, 2, 2), image_side=64, window=2, global_blocks=(1,)), 8),
        box=METHODS[method],
        mask_predictor=NormalizedMaskPredictor(8, CLASSES) if method == "ecm" else None,
    )


def batch(objects=2):
    boxes = torch.tensor([[4.0, 4, 30, 40], [20, 10, 60, 50]])[:objects]
    squares = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()]
    masks = PolygonMasks.from_lists(squares)
    targets = Targets(boxes, torch.tensor([1, 6])[:objects], 0, (56, 64), (112, 128), masks=masks)
    image = torch.randint(0, 256, (3, 56, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch([image], [targets])


@pytest.mark.parametrize("objects", [2, 0])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_detects(method, objects):
    model = detector(method).train()
    losses = model(batch(objects))
    assert {f"loss_cls_stage{k}" for k in range(3)} <= losses.keys()
    total = torch.stack(list(losses.values())).sum()
    assert total.isfinite()
    total.backward()
    assert model.backbone.net.pos_embed.grad.isfinite().all()
    (found,) = model.eval()(batch(objects))
    assert found.scores.isfinite().all()
    assert found.size == (112, 128)
    assert len(found) <= 12
    assert len(found.masks) == len(found)


@pytest.mark.parametrize("suppression", ["hard", "linear", "gaussian"])
@pytest.mark.parametrize("maskness", [0.0, 0.5])
def test_detections_are_sorted_and_limited_however_they_are_chosen(suppression, maskness):
    model = detector(suppression=suppression, maskness_threshold=maskness).eval()
    (found,) = model(batch())
    assert 0 < len(found) <= 12
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)


def test_autocast_ends_at_the_pyramid():
    model = detector().train()
    seen = {}
    parts = ("backbone.net.blocks.1.attn.proj", "backbone.simfp_4.0", "proposal_generator.rpn_head.objectness_logits",
             "roi_heads.box_head.2.fc1", "roi_heads.mask_head.mask_fcn1")  # fmt: skip
    for name in parts:
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, output.dtype)
        )
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch())
    assert [seen[name] for name in parts] == [torch.bfloat16] * 2 + [torch.float32] * 3
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
