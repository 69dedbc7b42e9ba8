"""Names: every tensor of the published files finds its place, and matching follows its rules."""

import gzip
import json

import pytest
import timm
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from shared import shared
from weight_cases import RESNET101_BLOCKS, caffe2_resnet, published_shapes

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights import keys

FOLDERS = [
    "mask_rcnn.res50.fpn.lvis.multiscale.1x",
    "mask_rcnn.res50.fpn.lvisv1.multiscale.1x",
    "mask_rcnn.res50.fpn.lvis.multiscale.cos_norm.disalign.1x",
]
FRESH = ("fpn_", "proposal_generator.", "roi_heads.")


def equal(ours, theirs):
    return ours == theirs


# ---- Caffe2 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [None, RESNET101_BLOCKS], ids=["R-50", "R-101"])
@pytest.mark.parametrize("long_names", [True, False])
def test_every_blob_of_a_caffe2_resnet_has_its_name(long_names, blocks):
    for blob, (ours, _) in caffe2_resnet(blocks, long_norm_names=long_names).items():
        assert keys.caffe2_name(blob) == ours


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_msra_file_fills_the_whole_backbone_of_the_published_folders(folder):
    published = published_shapes(shared(f"golden/cvpods_keys/{folder}.txt"))
    blobs = {blob: torch.empty(shape, device="meta") for blob, (_, shape) in caffe2_resnet().items()}
    state, family = keys.translate(blobs)
    matches = keys.match_suffixes(published, {name: value.shape for name, value in state.items()}, equal)
    backbone = {name for name in published if name.startswith("backbone.bottom_up.")}
    assert set(matches) == backbone
    assert len(backbone) == 265
    assert all(state[matches[name]].shape == published[name] for name in backbone)
    assert "BGR" in keys.EXPECTATIONS[family]


@pytest.mark.parametrize(
    ("blob", "ours"),
    [
        ("fpn_inner_res2_2_sum_lateral_w", "fpn_lateral2.weight"),
        ("fpn_inner_res5_2_sum_b", "fpn_lateral5.bias"),
        ("fpn_inner_res4_22_sum_lateral_w", "fpn_lateral4.weight"),
        ("fpn_res3_3_sum_w", "fpn_output3.weight"),
        ("conv_rpn_fpn2_w", "rpn_head.conv.weight"),
        ("rpn_cls_logits_fpn2_b", "rpn_head.objectness_logits.bias"),
        ("rpn_bbox_pred_fpn2_w", "rpn_head.anchor_deltas.weight"),
        ("fc6_w", "box_head.fc1.weight"),
        ("fc7_b", "box_head.fc2.bias"),
        ("head_conv1_gn_s", "box_head.conv1.norm.weight"),
        ("_[mask]_fcn4_w", "mask_head.mask_fcn4.weight"),
        ("conv5_mask_b", "mask_head.deconv.bias"),
        ("mask_fcn_logits_w", "mask_head.predictor.weight"),
        ("fpn_inner_res4_5_sum_lateral_gn_b", "fpn_lateral4.norm.bias"),
        ("kps_score_lowres_w", None),
        ("data", None),
    ],
)
def test_names_of_caffe2_heads(blob, ours):
    assert keys.caffe2_name(blob) == ours


def test_caffe2_heads_get_their_background_moved():
    rows = torch.arange(3.0)  # background, class 0, class 1
    state = keys.from_caffe2(
        {
            "cls_score_w": rows[:, None].expand(3, 2),
            "cls_score_b": rows,
            "bbox_pred_b": rows.repeat_interleave(4),
            "mask_fcn_logits_w": rows[:, None, None, None],
            "fc6_w_momentum": rows,
            "lr": rows[:1],
        }
    )
    assert state["box_predictor.cls_score.bias"].tolist() == [1, 2, 0]
    assert state["box_predictor.cls_score.weight"][:, 1].tolist() == [1, 2, 0]
    assert state["box_predictor.bbox_pred.bias"].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert state["mask_head.predictor.weight"].flatten().tolist() == [1, 2]
    assert len(state) == 4


def test_two_blobs_of_one_meaning_are_an_error():
    with pytest.raises(WeightsError, match=r"stem\.conv1\.norm\.weight"):
        keys.from_caffe2({"res_conv1_bn_s": torch.ones(1), "conv1_bn_s": torch.ones(1)})


# ---- torchvision, timm, EVA-02 --------------------------------------------------------------------------------------


def _meta_state(build, *args):
    with torch.device("meta"):
        return build(*args).state_dict()


@pytest.mark.parametrize("build", [torchvision.models.resnet50, lambda: timm.create_model("resnet50.tv_in1k")])
def test_torchvision_and_timm_resnets_fill_the_whole_backbone(build):
    published = published_shapes(shared(f"golden/cvpods_keys/{FOLDERS[0]}.txt"))
    state, family = keys.translate(_meta_state(build))
    matches = keys.match_suffixes(published, {name: value.shape for name, value in state.items()}, equal)
    backbone = {name for name in published if name.startswith("backbone.bottom_up.")}
    assert set(matches) == backbone
    assert all(state[matches[name]].shape == published[name] for name in backbone)
    assert family == "resnet"


@pytest.mark.parametrize("build", [torchvision.models.resnet18, torchvision.models.resnext101_32x8d])
def test_every_tensor_of_other_torchvision_resnets_is_renamed(build):
    state, _ = keys.translate(_meta_state(build))
    assert all(name.startswith(("stem.", "res", "linear.")) for name in state)
    assert len(state) == len(_meta_state(build))


def test_a_resnet_with_another_stem_and_shortcut_does_not_load_silently():
    with pytest.raises(WeightsError, match="ResNet-D"):
        keys.translate(_meta_state(timm.create_model, "resnet50d"))


@pytest.mark.parametrize(
    ("timm_name", "manifest"),
    [
        ("eva02_base_patch14_224", "eva2_coco_cascade_mask_rcnn_vitdet_b_4attn_1024_lrd0p7"),
        ("eva02_large_patch14_224", "eva2_lvis_cascade_mask_rcnn_vitdet_l_4attn_1024_lrd0p8"),
    ],
)
def test_timm_eva02_fills_the_published_detection_backbones(timm_name, manifest):
    content = json.loads(gzip.decompress(shared(f"golden/manifests/{manifest}.json.gz").read_bytes()))
    published = {name: torch.Size(shape) for name, shape in content["state_dict"].items()}
    state, _ = keys.translate(_meta_state(timm.create_model, timm_name))
    matches = keys.match_suffixes(published, {name: value.shape for name, value in state.items()}, equal)
    backbone = {name for name in published if name.startswith("backbone.net.") and "rope" not in name}
    assert set(matches) == backbone
    other_shape = {name for name in backbone if state[matches[name]].shape != published[name]}
    assert other_shape == {"backbone.net.patch_embed.proj.weight", "backbone.net.pos_embed"}  # 14 against 16 pixels


def test_the_final_norm_of_a_pretraining_file_reaches_no_other_norm():
    names = ["blocks.0.attn.proj.weight", "patch_embed.proj.weight", "norm.weight", "rope.freqs_cos", "mask_token"]
    wanted = ["backbone.net.patch_embed.proj.weight", "backbone.net.blocks.0.norm.weight"]
    state, _ = keys.translate({name: torch.zeros(2) for name in names}, wanted)
    assert list(state) == names[:2]


def test_wrappers_are_stripped():
    state = {"module.a.weight": torch.ones(1), "module._orig_mod.b": torch.ones(1), "c._orig_mod.d": torch.ones(1)}
    assert list(keys.strip_wrappers(state)) == ["a.weight", "b", "c.d"]
    with pytest.raises(WeightsError, match="same name"):
        keys.strip_wrappers({"module.a": torch.ones(1), "a": torch.ones(1)})


def test_detection_files_are_left_alone():
    for name in FOLDERS:
        published = published_shapes(shared(f"golden/cvpods_keys/{name}.txt"))
        state, family = keys.translate({key: torch.empty(shape, device="meta") for key, shape in published.items()})
        assert list(state) == list(published)
        assert family == "detectron2"


# ---- matching -------------------------------------------------------------------------------------------------------


def match(ours, theirs):
    """Match names of one and the same shape, or {name: shape}."""
    ours, theirs = (
        {name: torch.Size((1,)) for name in names} if not isinstance(names, dict) else names for names in (ours, theirs)
    )
    return keys.match_suffixes(ours, theirs, equal)


def test_a_name_matches_only_on_a_dot_boundary():
    assert match(["backbone.res2.0.conv1.weight"], ["onv1.weight", "0.conv1.weight"]) == {
        "backbone.res2.0.conv1.weight": "0.conv1.weight"
    }
    assert match(["backbone.myconv1.weight"], ["conv1.weight"]) == {}


def test_the_longest_match_wins():
    assert match(["a.b.c.w"], ["w", "c.w", "b.c.w"]) == {"a.b.c.w": "b.c.w"}


def test_an_equal_name_is_never_given_to_another():
    assert match(["fc.w", "head.fc.w"], ["fc.w"]) == {"fc.w": "fc.w"}


def test_two_claims_of_one_shape_are_an_error():
    with pytest.raises(WeightsError, match=r"'norm\.w' of the file fits 2 tensors.*'a\.norm\.w' and 'b\.norm\.w'"):
        match(["a.norm.w", "b.norm.w"], ["norm.w"])


def test_of_two_claims_the_one_of_the_same_shape_wins():
    ours = {"a.norm.w": torch.Size((8,)), "b.norm.w": torch.Size((4,))}
    assert match(ours, {"norm.w": torch.Size((4,))}) == {"b.norm.w": "norm.w"}


part = st.sampled_from(["a", "b", "c", "w", "0", "1"])
name = st.lists(part, min_size=1, max_size=4).map(".".join)


@given(ours=st.sets(name, max_size=12), theirs=st.sets(name, max_size=12))
def test_matching_obeys_its_definition(ours, theirs):
    try:
        matches = match(list(ours), list(theirs))
    except WeightsError:
        matches = None
    # The definition, spelled out over all pairs.
    longest = {}
    for name in ours:
        fitting = [other for other in theirs if name == other or name.endswith("." + other)]
        if fitting:
            longest[name] = max(fitting, key=len)
    by_theirs = {}
    for name, other in longest.items():
        by_theirs.setdefault(other, []).append(name)
    by_theirs = {other: [other] if other in names else names for other, names in by_theirs.items()}
    if any(len(names) > 1 for names in by_theirs.values()):
        assert matches is None
    else:
        assert matches == {names[0]: other for other, names in by_theirs.items()}


@given(
    names=st.sets(name, min_size=1, max_size=12), prefix=st.sampled_from(["backbone", "backbone.bottom_up", "x.y.z"])
)
def test_a_prefixed_model_is_found_by_its_unprefixed_file(names, prefix):
    # No name may end another one, or the file would be ambiguous.
    unique = [n for n in names if not any(m != n and (n.endswith("." + m) or m.endswith("." + n)) for m in names)]
    assert match([f"{prefix}.{n}" for n in unique], unique) == {f"{prefix}.{n}": n for n in unique}
