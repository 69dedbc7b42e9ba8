"""Loading: what fits is loaded, the rest is reported, and the model of another architecture stays as it was."""

import collections
import pickle

import numpy as np
import pytest
import torch
from shared import shared
from torch import nn
from torchvision.ops import FrozenBatchNorm2d
from weight_cases import caffe2_resnet, model_of, published_shapes

from cvpods_ext.errors import ConfigError, WeightsError
from cvpods_ext.modeling.weights import Checkpoint, load_into, read
from cvpods_ext.modeling.weights.report import LoadReport, grouped

STATISTICS = ("running_mean", "running_var", "norm.weight", "norm.bias")


def golden(name="d2_tiny_mask_rcnn"):
    return read(shared(f"golden/{name}/weights.safetensors"))


def blank(state):
    """A model of the same names and shapes, filled with 0.5."""
    return model_of({name: torch.full_like(value, 0.5) for name, value in state.items()}, buffers=STATISTICS)


def assert_holds(model, state, names=None):
    values = model.state_dict()
    for name in names or state:
        assert torch.equal(values[name], state[name]), name


@pytest.mark.parametrize("name", ["d2_tiny_mask_rcnn", "d2_tiny_cascade_mask_rcnn", "eva_tiny"])
def test_the_reference_weights_load_completely(name):
    checkpoint = golden(name)
    model = blank(checkpoint.state)
    report = load_into(model, checkpoint, name)
    assert report.is_complete
    assert len(report.loaded) == len(checkpoint.state)
    assert report.summary() == f"loaded {len(checkpoint.state)} of {len(checkpoint.state)} tensors from {name}"
    assert_holds(model, checkpoint.state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_file_saved_by_a_parallel_or_compiled_model_loads_alike(prefix):
    state = golden().state
    model = blank(state)
    assert load_into(model, {prefix + name: value for name, value in state.items()}, "x").is_complete
    assert_holds(model, state)


def test_half_precision_files_load_into_full_precision_models():
    model = nn.Linear(2, 1)
    load_into(model, {name: value.half() for name, value in nn.Linear(2, 1).state_dict().items()}, "x")
    assert model.weight.dtype == torch.float32


# ---- Caffe2 file into a detector ------------------------------------------------------------------------------------


def caffe2_file(path, **options):
    """A small MSRA-like file with seeded values; returns {our name: value} as well."""
    rng = np.random.default_rng(0)
    blobs, expected = {}, {}
    for blob, (ours, shape) in caffe2_resnet(width=16, **options).items():
        blobs[blob] = rng.random(shape, dtype=np.float32)
        expected["backbone.bottom_up." + ours] = torch.from_numpy(blobs[blob])
    blobs["conv1_w_momentum"] = blobs["conv1_w"]
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    return expected


def detector_like(expected):
    state = {name: value for name, value in expected.items() if ".linear." not in name}
    return blank(
        {**state, "backbone.fpn_lateral2.weight": torch.zeros(4, 4, 1, 1), "roi_heads.fc.bias": torch.zeros(3)}
    )


@pytest.mark.parametrize("long_norm_names", [True, False])
def test_a_caffe2_file_fills_the_backbone_of_a_detector(tmp_path, long_norm_names):
    expected = caffe2_file(tmp_path / "R-50.pkl", long_norm_names=long_norm_names)
    model = detector_like(expected)
    report = load_into(model, read(tmp_path / "R-50.pkl"), "R-50.pkl")
    assert_holds(model, expected, [name for name in expected if ".linear." not in name])
    assert report.missing == ["backbone.fpn_lateral2.weight", "roi_heads.fc.bias"]
    assert report.unexpected == ["linear.weight", "linear.bias"]
    assert any("BGR" in note for note in report.notes)


def test_folded_statistics_make_frozen_norms_plain_affine_maps(tmp_path):
    caffe2_file(tmp_path / "R-50.pkl", statistics=False)
    model = nn.Sequential()
    model.add_module("stem", nn.Sequential())
    model.stem.conv1 = nn.Conv2d(3, 4, 7, bias=False)
    model.stem.conv1.norm = FrozenBatchNorm2d(4)
    model.stem.conv1.norm.running_var.fill_(9)  # what a careless loader would leave
    report = load_into(model, read(tmp_path / "R-50.pkl"), "R-50.pkl")
    norm = model.stem.conv1.norm
    x = torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(norm(x), x * norm.weight[:, None, None] + norm.bias[:, None, None])
    assert not report.missing
    assert any("1 frozen batch norms have no statistics" in note for note in report.notes)


def test_old_frozen_norms_lose_the_eps_that_was_added_to_their_variance():
    model = nn.Sequential(FrozenBatchNorm2d(2), FrozenBatchNorm2d(2), nn.BatchNorm2d(2))
    state = {name: torch.ones_like(value) for name, value in model.state_dict().items()}
    checkpoint = Checkpoint(state, {"versions": {"0": 2, "1": 3, "2": 2}}, "torch")
    report = load_into(model, checkpoint, "old.pth")
    assert model[0].running_var.tolist() == pytest.approx([1 - 1e-5] * 2, abs=1e-7)
    assert model[1].running_var.tolist() == [1, 1]
    assert model[2].running_var.tolist() == [1, 1]  # an ordinary norm of version 2 is as it should be
    assert any("1 frozen batch norms were saved before" in note for note in report.notes)


def test_without_versions_nothing_is_subtracted():
    model = nn.Sequential(FrozenBatchNorm2d(2))
    load_into(model, {name: torch.ones(2) for name in model.state_dict()}, "x")
    assert model[0].running_var.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("stride_in_1x1", "kind", "groups", "warns"),
    [
        (False, "caffe2", 1, True),
        (True, "caffe2", 1, False),
        (False, "resnet", 1, False),
        (True, "resnet", 1, True),
        (False, "caffe2", 2, False),  # ResNeXt strides in the 3x3 whoever trained it
    ],
)
def test_a_stride_in_the_wrong_convolution_is_said_aloud(stride_in_1x1, kind, groups, warns):
    block = nn.Module()
    block.conv1 = nn.Conv2d(2, 2, 1, stride=2 if stride_in_1x1 else 1, bias=False)
    block.conv2 = nn.Conv2d(2, 2, 3, stride=1 if stride_in_1x1 else 2, groups=groups, bias=False)
    model = nn.Module()
    model.res3 = nn.ModuleList([block])
    kernel = torch.zeros(2, 2, 1, 1)
    state = {"res3_0_branch2a_w": kernel, "res2_0_branch2a_w": kernel}
    if kind == "resnet":
        state = {"layer2.0.conv1.weight": kernel, "layer1.0.conv1.weight": kernel}
    report = load_into(model, state, "R-50")
    assert any("several AP less" in note for note in report.notes) == warns


# ---- what does not fit ----------------------------------------------------------------------------------------------


def test_another_class_count_keeps_everything_else_and_says_so():
    checkpoint = golden()
    state = dict(checkpoint.state)
    other = "roi_heads.box_predictor."
    for name, shape in {
        f"{other}cls_score.weight": (6, 64),
        f"{other}cls_score.bias": (6,),
        f"{other}bbox_pred.weight": (20, 64),
        f"{other}bbox_pred.bias": (20,),
        "roi_heads.mask_head.predictor.weight": (5, 32, 1, 1),
        "roi_heads.mask_head.predictor.bias": (5,),
        f"{other}fed_loss_cls_weights": (5,),
    }.items():
        state[name] = torch.zeros(shape)
    model = blank(state)
    report = load_into(model, checkpoint, "coco.pth")
    assert {mismatch.name for mismatch in report.skipped} == {
        name for name in state if state[name] is not checkpoint.state[name]
    }
    assert len(report.loaded) == len(state) - 7
    assert_holds(model, checkpoint.state, report.loaded)
    assert model.state_dict()[f"{other}cls_score.weight"].unique().tolist() == [0.5]
    assert "the file has 12 classes, the model 5" in report.summary()
    assert f"{other}cls_score.weight: [13, 64] in the file, [6, 64] in the model" in report.summary()


def test_another_architecture_is_an_error_and_changes_nothing():
    model = nn.Sequential(nn.Linear(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"no tensor of vit\.pth fits the model.*pods_weights inspect vit\.pth"):
        load_into(model, {"encoder.layers.0.attention.query": torch.ones(2, 2)}, "vit.pth")
    with pytest.raises(WeightsError, match=r"no shape does, for example 0\.weight: \[3, 2\] in the file"):
        load_into(model, {"0.weight": torch.ones(3, 2)}, "other.pth")
    assert_holds(model, before)


def test_a_deeper_backbone_reports_what_it_did_not_find():
    published = published_shapes(shared("golden/cvpods_keys/mask_rcnn.res50.fpn.lvisv1.multiscale.1x.txt"))
    small = {name: torch.zeros(1) for name in published}
    deeper = {
        **small,
        **{name.replace("res4.1.", "res4.9."): value for name, value in small.items() if "res4.1." in name},
    }
    report = load_into(model_of(deeper), small, "R-50.pth")
    assert len(report.missing) == 15
    assert "backbone.bottom_up.res4.9.conv1.weight" in report.summary()


def test_tensors_that_are_computed_are_never_mentioned():
    state = collections.OrderedDict(
        {
            "pixel_mean": torch.zeros(3, 1, 1),
            "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4),
            "bn.num_batches_tracked": torch.tensor(1),
            "backbone.net.rope_win.freqs_cos": torch.zeros(4, 4),
            "fc.weight": torch.ones(2, 2),
        }
    )
    assert load_into(model_of({"fc.weight": torch.zeros(2, 2)}), state, "x").is_complete
    assert load_into(model_of(state), {"fc.weight": torch.ones(2, 2)}, "x").is_complete


def test_an_average_may_hold_buffers_that_the_model_computes():
    model = torch.nn.Linear(2, 2)
    model.register_buffer("log_weights", torch.ones(2), persistent=False)
    assert load_into(model, {**model.state_dict(), "log_weights": torch.zeros(2)}, "x").is_complete
    assert model.log_weights.tolist() == [1, 1]


def test_shapes_that_differ_only_by_ones_are_reshaped():
    model = model_of({"scale": torch.zeros(1), "fc.weight": torch.zeros(3, 2)})
    report = load_into(model, {"scale": torch.tensor(20.0), "fc.weight": torch.ones(3, 2, 1, 1)}, "x")
    assert report.reshaped == ["scale", "fc.weight"]
    assert model.scale.item() == 20


def test_an_ambiguous_name_is_an_error_that_names_the_file():
    model = model_of({"a.norm.weight": torch.zeros(1), "b.norm.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"x\.pth: 'norm\.weight'"):
        load_into(model, {"norm.weight": torch.zeros(1)}, "x.pth")


# ---- report ---------------------------------------------------------------------------------------------------------


def test_names_are_grouped_by_module_and_then_by_subtree():
    assert grouped(["a.fc.weight", "a.fc.bias", "b"]) == ["a.fc.{bias, weight}", "b"]
    many = [f"backbone.res{i}.{j}.conv.weight" for i in range(4) for j in range(9)] + ["head.fc.weight"]
    assert grouped(many) == [f"backbone.res{i}.* (9)" for i in range(4)] + ["head.fc.weight"]


def test_a_summary_fits_on_one_screen_whatever_is_missing():
    names = [f"m{i}.n{j}.weight" for i in range(40) for j in range(40)]
    report = LoadReport("x", [], missing=names, unexpected=names)
    assert len(report.summary().splitlines()) <= 2 * 14 + 1


def test_tensors_that_skip_finds_keep_their_values_and_are_reported():
    state = golden().state
    model = blank(state)
    report = load_into(model, state, "x", skip=(r"cls_score",))
    kept = [name for name in state if "cls_score" in name]
    assert sorted(report.missing) == sorted(kept)
    assert not report.unexpected
    assert all((model.state_dict()[name] == 0.5).all() for name in kept)
    assert_holds(model, state, [name for name in state if name not in kept])


def test_a_skip_that_finds_nothing_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match=r"init_skip='cls_skore' matches no tensor"):
        load_into(nn.Linear(2, 1), nn.Linear(2, 1).state_dict(), "x", skip=("cls_skore",))
