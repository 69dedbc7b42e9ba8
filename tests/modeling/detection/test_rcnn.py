"""The assembled detectors: what they return, at the edges too, and that they compute only what trains."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from cvpods_ext.config.detection import Detector
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import CosineClassifier
from cvpods_ext.modeling.detection.build import (
    BoxBranch,
    CascadeBoxBranch,
    cascade_mask_rcnn_fpn,
    cascade_rcnn_fpn,
    faster_rcnn_fpn,
    mask_rcnn_fpn,
)
from cvpods_ext.modeling.detection.mask_head import NormalizedMaskPredictor
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.necks.fpn import FPN
from cvpods_ext.structures import Batch, BitMasks, Detections, PolygonMasks, Targets

NUM_CLASSES = 7
STAGES = (Stage(1, 8, 8), Stage(1, 8, 8), Stage(1, 16, 16), Stage(1, 16, 16))
BOX_LOSSES = {"loss_cls", "loss_box_reg"}
RPN_LOSSES = {"loss_rpn_cls", "loss_rpn_loc"}


def in_order(shape, device):
    return torch.linspace(1, 0.5, shape[-1], device=device).expand(tuple(shape))


TINY = Detector(
    anchor_sizes=(8, 16, 32, 64, 128),
    rois_per_image=24,
    anchors_per_image=32,
    proposals_per_level=(50, 50),
    proposals=(40, 30),
    box_fc=(16, 16),
    mask_width=8,
    mask_convs=1,
    score_threshold=0.0,
    detections_per_image=10,
)


def backbone(norm="BN", freeze_at=0):
    return FPN(ResNet(STAGES, stem_channels=8, bottleneck=False, norm=norm, freeze_at=freeze_at), channels=8)


def build(assemble=mask_rcnn_fpn, settings=TINY, **changes):
    torch.manual_seed(0)
    arguments = {"num_classes": NUM_CLASSES, "backbone": backbone(), "priorities": in_order} | changes
    return assemble(settings, **arguments)


def image_and_target(i, boxes, size=(64, 80), masks="polygon"):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(i))
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    polygons = PolygonMasks.from_lists([[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()])
    held = {"polygon": polygons, "bitmap": polygons.to_bitmasks(size), "none": None}[masks]
    labels = torch.arange(len(boxes)) % NUM_CLASSES
    return image, Targets(boxes, labels, i, size, (2 * size[0], 2 * size[1]), held)


def batch(*boxes_per_image, masks="polygon"):
    pairs = [image_and_target(i, boxes, masks=masks) for i, boxes in enumerate(boxes_per_image)]
    return Batch([image for image, _ in pairs], [target for _, target in pairs])


TWO = ([[5.0, 5, 40, 50], [30, 10, 70, 60]], [[0.0, 0, 80, 64]])
ASSEMBLIES = {
    mask_rcnn_fpn: BOX_LOSSES | RPN_LOSSES | {"loss_mask"},
    faster_rcnn_fpn: BOX_LOSSES | RPN_LOSSES,
    cascade_mask_rcnn_fpn: {f"{n}_stage{k}" for n in BOX_LOSSES for k in range(3)} | RPN_LOSSES | {"loss_mask"},
    cascade_rcnn_fpn: {f"{n}_stage{k}" for n in BOX_LOSSES for k in range(3)} | RPN_LOSSES,
}


@pytest.mark.parametrize("agnostic", [True, False])
@pytest.mark.parametrize("assemble", ASSEMBLIES)
def test_every_assembly_trains_all_it_should_and_detects(assemble, agnostic):
    model = build(assemble, replace(TINY, class_agnostic_boxes=agnostic)).train()
    losses = model(batch(*TWO))
    assert losses.keys() == ASSEMBLIES[assemble]
    torch.stack(list(losses.values())).sum().backward()
    silent = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert silent == []
    with torch.no_grad():
        found = model.eval()(batch(*TWO))
    assert len(found) == 2
    for i, detections in enumerate(found):
        assert isinstance(detections, Detections)
        assert detections.image_id == i
        assert 0 < len(detections) <= 10
        assert (detections.masks is None) == ("mask" not in assemble.__name__)
        assert detections.boxes[:, 2].max() <= 160
        assert torch.equal(detections.scores, detections.scores.sort(descending=True).values)


@pytest.mark.parametrize("assemble", ASSEMBLIES)
@pytest.mark.parametrize(
    "boxes",
    [([], []), ([], [[5.0, 5, 40, 50]]), ([[10.0, 10, 11, 11]], [[10.0, 10, 10, 10]])],
    ids=["no objects", "one image without", "one pixel and none"],
)
def test_losses_are_finite_and_reach_all_parameters_at_the_edges(assemble, boxes):
    model = build(assemble).train()
    losses = model(batch(*boxes))
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    assert total.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_bitmap_masks_train_like_polygons():
    model = build().eval().train()
    polygons, bitmaps = (model(batch(*TWO, masks=kind))["loss_mask"] for kind in ("polygon", "bitmap"))
    torch.testing.assert_close(polygons, bitmaps, rtol=0.02, atol=0)


def test_a_box_only_model_needs_no_masks():
    assert build(faster_rcnn_fpn).train()(batch(*TWO, masks="none")).keys() == BOX_LOSSES | RPN_LOSSES


def test_images_are_normalised_one_by_one_and_padded_with_zeros():
    model = build()
    model.pixel_std.fill_(2.0)
    images = [torch.full((3, 30, 40), 200, dtype=torch.uint8), torch.full((3, 33, 20), 10, dtype=torch.uint8)]
    padded, image_sizes = model.preprocess(images)
    assert padded.shape == (2, 3, 64, 64)
    assert image_sizes.tolist() == [[40, 30, 40, 30], [20, 33, 20, 33]]
    expected = (200 - torch.tensor([103.53, 116.28, 123.675])) / 2
    torch.testing.assert_close(padded[0, :, 29, 39], expected)
    assert padded[0, :, 30:].abs().sum() == 0
    assert padded[0, :, :, 40:].abs().sum() == 0


def test_an_image_is_detected_alike_alone_and_beside_a_larger_one():
    model = build().eval()
    small, large = image_and_target(0, [], (64, 64)), image_and_target(1, [], (64, 96))
    with torch.no_grad():
        alone = model(Batch([small[0]], [small[1]]))[0]
        beside = model(Batch([small[0], large[0]], [small[1], large[1]]))[0]
    # the padding is seen by convolutions at the border, so only almost
    torch.testing.assert_close(alone.scores, beside.scores, atol=0.05, rtol=0)


class Calls:
    """Counts the forward passes of a module."""

    def __init__(self, module):
        self.count = 0
        module.register_forward_hook(self._seen)

    def _seen(self, *_):
        self.count += 1


TRAINED = ("logit_scale", "logit_bias", "confidence_layer.weight", "confidence_layer.bias")


def stage_two(assemble=mask_rcnn_fpn):
    cosine = partial(CosineClassifier, 16, NUM_CLASSES)
    loss = partial(GroupReweightedCrossEntropy, torch.arange(1, NUM_CLASSES + 1))
    box = BoxBranch(classifier=DisAlign(cosine()), loss=loss())
    if assemble is cascade_mask_rcnn_fpn:
        box = CascadeBoxBranch(classifier=cosine, calibration=DisAlign, loss=loss)
    return build(assemble, replace(TINY, class_agnostic_boxes=assemble is cascade_mask_rcnn_fpn), box=box).train()


@pytest.mark.parametrize("assemble", [mask_rcnn_fpn, cascade_mask_rcnn_fpn])
def test_stage_two_equals_the_full_computation_and_skips_the_rest(assemble):
    frozen, full = stage_two(assemble), stage_two(assemble)
    full.load_state_dict(frozen.state_dict())
    for name, parameter in frozen.named_parameters():
        parameter.requires_grad_(name.endswith(TRAINED))
    for model in (frozen, full):  # statistics of the batch would differ: compare in the frozen network's mode
        model.backbone.eval()
    masks, regression = Calls(frozen.roi_heads.mask_head), Calls(frozen.proposal_generator.rpn_head)
    losses, all_losses = frozen(batch(*TWO)), full(batch(*TWO))
    assert masks.count == 0
    assert regression.count == 1  # the proposals themselves are needed
    assert losses.keys() == {name for name in all_losses if name.startswith("loss_cls")}
    for name, loss in losses.items():
        torch.testing.assert_close(loss, all_losses[name])
    torch.stack(list(losses.values())).sum().backward()
    torch.stack([all_losses[name] for name in losses]).sum().backward()
    theirs = dict(full.named_parameters())
    for name, parameter in frozen.named_parameters():
        if name.endswith(TRAINED):
            torch.testing.assert_close(parameter.grad, theirs[name].grad)
        else:
            assert parameter.grad is None, name


def test_stage_two_regresses_no_boxes_and_records_no_graph_below_the_head():
    model = stage_two()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(TRAINED))
    regression = Calls(model.roi_heads.box_predictor.bbox_pred)
    pooled = []
    model.roi_heads.box_head.register_forward_hook(lambda *args: pooled.append(args[-1]))
    model(batch(*TWO))
    assert regression.count == 0
    assert not pooled[0].requires_grad


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("roi_heads.mask_head", {"loss_mask"}),
        ("roi_heads.box_predictor.bbox_pred", {"loss_box_reg"}),
        ("roi_heads.box_predictor.cls_score", {"loss_cls"}),
        ("roi_heads.box_head", BOX_LOSSES),
        ("proposal_generator", RPN_LOSSES),
        ("backbone", BOX_LOSSES | RPN_LOSSES | {"loss_mask"}),
    ],
)
def test_only_losses_that_reach_what_trains_are_computed(part, expected):
    model = build().train().requires_grad_(False)
    model.get_submodule(part).requires_grad_(True)
    assert model(batch(*TWO)).keys() == expected


def test_a_frozen_network_keeps_its_batch_norm_statistics():
    model = build().train().requires_grad_(False)
    model.roi_heads.box_predictor.requires_grad_(True)
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    model(batch(*TWO))
    assert before
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


def test_a_few_steps_learn_to_find_one_object():
    torch.manual_seed(0)
    model = build(settings=replace(TINY, box_fc=(64, 64))).train()
    data = batch([[16.0, 16, 48, 56]], [[16.0, 16, 48, 56]])
    data.images[1] = data.images[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(40):
        total = torch.stack(list(model(data).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert history[-1] < history[0] / 3
    with torch.no_grad():
        best = model.eval()(data)[0]
    assert best.labels[0] == 0
    assert best.scores[0] > 0.5
    assert (best.boxes[0] / 2 - torch.tensor([16.0, 16, 48, 56])).abs().max() < 8


def test_a_normalised_mask_predictor_fits_into_the_slot():
    model = build(mask_predictor=NormalizedMaskPredictor(8, NUM_CLASSES)).train()
    losses = model(batch(*TWO))
    losses["loss_mask"].backward()
    assert isinstance(model.roi_heads.mask_head.predictor.weight, nn.Parameter)
    assert model.roi_heads.mask_head.predictor.weight.grad.abs().sum() > 0


def test_bitmasks_are_accepted_by_type():
    assert isinstance(batch(*TWO, masks="bitmap").targets[0].masks, BitMasks)
