"""Whole detectors of the playground, built without memory, against the files that they start from."""

from pathlib import Path

import pytest
import torch
import torchvision
from weight_cases import RESNET101_BLOCKS, caffe2_resnet

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights import load_into

PLAYGROUND = Path(__file__).resolve().parents[3] / "playground" / "lvis1.0"
BASELINE = "mask_rcnn.res50.fpn.lvisv1.multiscale.1x"
DISALIGN = "mask_rcnn.res50.fpn.lvisv1.multiscale.disalign.1x"


def build(name):
    with torch.device("meta"):
        return load_experiment(PLAYGROUND / name).build_model()


def msra(blocks=None, **options):
    """The ImageNet file of MSRA, names and shapes only."""
    return {blob: torch.empty(shape, device="meta") for blob, (_, shape) in caffe2_resnet(blocks, **options).items()}


@pytest.fixture(scope="module")
def baseline():
    return build(BASELINE)


@pytest.mark.parametrize("options", [{}, {"long_norm_names": False}, {"statistics": False}])
def test_the_msra_file_fills_the_backbone_and_nothing_else(baseline, options):
    report = load_into(baseline, msra(**options), "R-50.pkl")
    assert not any(name.startswith("backbone.bottom_up.") for name in report.missing)
    assert all(name.startswith(("backbone.fpn_", "proposal_generator.", "roi_heads.")) for name in report.missing)
    assert report.unexpected == ["linear.weight", "linear.bias"]
    assert not report.skipped
    assert not any("WARNING" in note for note in report.notes)
    folded = any("53 frozen batch norms have no statistics" in note for note in report.notes)
    assert folded == (options == {"statistics": False})


def test_torchvision_weights_warn_of_the_stride(baseline):
    with torch.device("meta"):
        state = torchvision.models.resnet50().state_dict()
    report = load_into(baseline, state, "resnet50.pth")
    assert not any(name.startswith("backbone.bottom_up.") for name in report.missing)
    assert any("WARNING" in note and "stride_in_1x1=False" in note for note in report.notes)
    assert any("RGB" in note for note in report.notes)


def test_a_deeper_msra_file_reports_the_blocks_that_found_no_place(baseline):
    report = load_into(baseline, msra(RESNET101_BLOCKS), "R-101.pkl")
    assert "res4.* (" in report.summary() or "res4.10" in report.summary()
    assert sum(name.startswith("res4.") for name in report.unexpected) == 17 * 15


def test_a_second_stage_takes_everything_from_its_first(baseline):
    report = load_into(build(DISALIGN), baseline.state_dict(), "model_final.pth")
    ours = ("confidence_layer.bias", "confidence_layer.weight", "logit_bias", "logit_scale")
    assert sorted(report.missing) == [f"roi_heads.box_predictor.{name}" for name in ours]
    assert not report.unexpected
    assert not report.skipped


def test_a_coco_detector_keeps_all_but_its_class_rows(baseline):
    state = dict(baseline.state_dict())
    for name, rows in (("box_predictor.cls_score", 81), ("box_predictor.bbox_pred", 320), ("mask_head.predictor", 80)):
        for part in ("weight", "bias"):
            value = state[f"roi_heads.{name}.{part}"]
            state[f"roi_heads.{name}.{part}"] = torch.empty((rows, *value.shape[1:]), device="meta")
    report = load_into(baseline, state, "coco.pth")
    assert len(report.skipped) == 6
    assert not report.missing
    assert any("the file has 80 classes, the model 1203" in note for note in report.notes)


def test_a_transformer_is_another_architecture(baseline):
    state = {f"blocks.{i}.attn.qkv.weight": torch.empty(4, 4, device="meta") for i in range(3)}
    state["patch_embed.proj.weight"] = torch.empty(4, 3, 16, 16, device="meta")
    with pytest.raises(WeightsError, match="another architecture"):
        load_into(baseline, state, "vit.pth")
