"""Names: pure functions that turn the names of other programs into ours, and match names of differing depth.

Ours are detectron2's (`backbone.bottom_up.res2.0.conv1.norm.weight`). A translator may leave out the leading parts;
`match_suffixes` finds where the rest belongs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights import eva02, mmdet

State = dict[str, Tensor]


def strip_wrappers(state: Mapping[str, Tensor]) -> State:
    """Remove what DistributedDataParallel (`module.`) and torch.compile (`_orig_mod.`) put before or between names."""
    stripped = {name.removeprefix("module.").replace("_orig_mod.", ""): value for name, value in state.items()}
    if len(stripped) != len(state):
        raise WeightsError("two tensors of the file have the same name once `module.` is removed")
    return stripped


# ---- Caffe2 (Detectron and the MSRA files), names as in detectron2's model zoo --------------------------------------

_CAFFE2_SUFFIXES = (
    ("_bn_s", ".norm.weight"),
    ("_bn_gamma", ".norm.weight"),
    ("_bn_b", ".norm.bias"),
    ("_bn_beta", ".norm.bias"),
    ("_bn_rm", ".norm.running_mean"),
    ("_bn_running_mean", ".norm.running_mean"),
    ("_bn_riv", ".norm.running_var"),
    ("_bn_running_var", ".norm.running_var"),
    ("_gn_s", ".norm.weight"),
    ("_gn_b", ".norm.bias"),
    ("_w", ".weight"),
    ("_b", ".bias"),
)
_CAFFE2_LAYERS = (
    (r"(?:res_)?conv1", "stem.conv1"),
    (r"res(\d)_(\d+)_branch2a", r"res\1.\2.conv1"),
    (r"res(\d)_(\d+)_branch2b", r"res\1.\2.conv2"),
    (r"res(\d)_(\d+)_branch2c", r"res\1.\2.conv3"),
    (r"res(\d)_(\d+)_branch1", r"res\1.\2.shortcut"),
    (r"pred", "linear"),
    (r"fpn_inner_res(\d)_\d+_sum(?:_lateral)?", r"fpn_lateral\1"),
    (r"fpn_res(\d)_\d+_sum", r"fpn_output\1"),
    (r"conv_rpn(?:_fpn\d)?", "rpn_head.conv"),
    (r"rpn_cls_logits(?:_fpn\d)?", "rpn_head.objectness_logits"),
    (r"rpn_bbox_pred(?:_fpn\d)?", "rpn_head.anchor_deltas"),
    (r"fc6", "box_head.fc1"),
    (r"fc7", "box_head.fc2"),
    (r"head_conv(\d)", r"box_head.conv\1"),
    (r"cls_score", "box_predictor.cls_score"),
    (r"bbox_pred", "box_predictor.bbox_pred"),
    (r"_\[mask\]_fcn(\d)", r"mask_head.mask_fcn\1"),
    (r"conv5_mask", "mask_head.deconv"),
    (r"mask_fcn_logits", "mask_head.predictor"),
)


def caffe2_name(name: str) -> str | None:
    """Our name of a Caffe2 blob, without its leading parts; None for blobs that are no weights of ours."""
    for ending, suffix in _CAFFE2_SUFFIXES:
        if name.endswith(ending):
            layer = name[: -len(ending)]
            for pattern, ours in _CAFFE2_LAYERS:
                found = re.fullmatch(pattern, layer)
                if found:
                    return found.expand(ours) + suffix
            return None
    return None


def from_caffe2(state: Mapping[str, Tensor]) -> State:
    """Rename blobs, and move the background class from first to last (or out, where we have no such row).

    Momentum blobs are dropped. Blobs without a counterpart keep their name, so that a report shows them.
    """
    renamed: State = {}
    for blob, value in state.items():
        if blob.endswith("_momentum") or blob in ("lr", "weight_order"):
            continue
        ours = caffe2_name(blob) or blob
        if ours in renamed:
            raise WeightsError(f"two Caffe2 blobs mean {ours!r}; one of them is {blob!r}")
        renamed[ours] = _background_last(ours, value)
    return renamed


def _background_last(name: str, value: Tensor) -> Tensor:
    """Caffe2 heads keep the background in row 0 (rows 0 to 3 of boxes, channel 0 of masks)."""
    if name.startswith("box_predictor.cls_score."):
        return torch.cat([value[1:], value[:1]])
    if name.startswith("box_predictor.bbox_pred."):
        return value[4:]
    if name.startswith("mask_head.predictor."):
        return value[1:]
    return value


# ---- torchvision and timm -------------------------------------------------------------------------------------------


def resnet_name(name: str) -> str | None:
    """Our name of a tensor of a torchvision or plain timm ResNet; None where we have no counterpart."""
    patterns = (
        (r"conv1\.weight", "stem.conv1.weight"),
        (r"bn1\.(.+)", r"stem.conv1.norm.\1"),
        (r"layer(\d)\.(\d+)\.conv(\d)\.weight", r"res{stage}.\2.conv\3.weight"),
        (r"layer(\d)\.(\d+)\.bn(\d)\.(.+)", r"res{stage}.\2.conv\3.norm.\4"),
        (r"layer(\d)\.(\d+)\.downsample\.0\.weight", r"res{stage}.\2.shortcut.weight"),
        (r"layer(\d)\.(\d+)\.downsample\.1\.(.+)", r"res{stage}.\2.shortcut.norm.\3"),
        (r"fc\.(weight|bias)", r"linear.\1"),
    )
    for pattern, ours in patterns:
        found = re.fullmatch(pattern, name)
        if found:
            stage = int(found[1]) + 1 if "{stage}" in ours else 0
            return found.expand(ours).replace("{stage}", str(stage))
    return None


def from_resnet(state: Mapping[str, Tensor]) -> State:
    """Rename a torchvision or timm ResNet or ResNeXt; deep stems and pooled shortcuts (ResNet-D) are refused."""
    if "conv1.0.weight" in state or any(name.endswith("downsample.1.weight") and value.ndim == 4
                                        for name, value in state.items()):  # fmt: skip
        raise WeightsError(
            "this is a ResNet-D (deep stem or pooled shortcut), which the R-CNN backbones do not have. "
            "Choose a plain variant, such as timm's resnet50.tv_in1k"
        )
    return {resnet_name(name) or name: value for name, value in state.items()}


def from_eva(state: Mapping[str, Tensor]) -> State:
    """Give the layers of EVA-02, of its authors or of timm, the authors' names."""
    return {eva02.timm_name(name): value for name, value in eva02.split_fused(state).items()}


def from_mmpretrain(state: Mapping[str, Tensor]) -> State:
    """Give the layers of mmpretrain's EVA-02 the authors' names."""
    return from_eva(eva02.from_mmpretrain(state))


def from_cvpods_classifier(state: Mapping[str, Tensor]) -> State:
    """Give the layers of an image classifier of cvpods our names; the weights of its loss belong to the data."""
    renamed = {name: name.replace("network.linear.", "head.", 1) for name in state if not name.startswith("loss_ev")}
    return {ours.replace("network.", "backbone.bottom_up.", 1): state[name] for name, ours in renamed.items()}


def from_mmdet(state: Mapping[str, Tensor]) -> State:
    """Give the layers of a two-stage detector of mmdetection our names."""
    return mmdet.from_mmdet(state, resnet_name)


# ---- which program wrote it -----------------------------------------------------------------------------------------

_RGB = "images are RGB, normalised with mean (123.675, 116.28, 103.53) and std (58.395, 57.12, 57.375)"
_TRANSLATORS: Mapping[str, Callable[[Mapping[str, Tensor]], State]] = {
    "caffe2": from_caffe2,
    "resnet": from_resnet,
    "mmdet": from_mmdet,
    "eva02": from_eva,
    "mmpretrain": from_mmpretrain,
    "vit": dict,
    "cvpods classifier": from_cvpods_classifier,
    "detectron2": dict,
}
EXPECTATIONS: Mapping[str, str] = {
    "caffe2": "images are BGR, 0 to 255, std 1, and bottlenecks stride in their 1x1 convolution",
    "resnet": f"{_RGB}, and bottlenecks stride in their 3x3 convolution",
    "mmdet": mmdet.EXPECTATION,
    "eva02": "images are RGB, normalised as in CLIP by classifiers, and as in ImageNet by detectors and segmentation",
    "mmpretrain": (
        "images are RGB, normalised as in CLIP, and layers are normalised with eps 1e-5, where this model has the 1e-6 "
        "of EVA-02's authors: outputs differ by about 1e-5 of the largest"
    ),
    "vit": _RGB,
    "cvpods classifier": f"{_RGB}, and bottlenecks stride in their 3x3 convolution",
    "detectron2": "",
}


def family(names: Iterable[str]) -> str:
    """A key of `EXPECTATIONS`; "detectron2" is all else."""
    names = set(names)
    if any(re.fullmatch(r"(res\d_\d+_branch\w+|conv1|conv_rpn\w*|fc6)_w", name) for name in names):
        return "caffe2"
    if "layer1.0.conv1.weight" in names:
        return "resnet"
    if mmdet.is_mmdet(names):
        return "mmdet"
    if {"network.stem.conv1.weight", "network.linear.weight"} <= names:
        return "cvpods classifier"
    if "backbone.patch_embed.projection.weight" in names and "backbone.layers.0.mlp.w12.weight" in names:
        return "mmpretrain"
    if "patch_embed.proj.weight" in names and any(name.startswith("blocks.0.attn.") for name in names):
        # Only EVA-02 treats queries apart from keys.
        return "eva02" if any(name.startswith("blocks.0.attn.q_") for name in names) else "vit"
    return "detectron2"


def translate(state: Mapping[str, Tensor], wanted: Collection[str] | None = None) -> tuple[State, str]:
    """Rename a state dict of any known family; also give the family, whose EXPECTATIONS the model should meet.

    With the names of a model as `wanted`, what lies around the blocks of a transformer is left out unless the model
    has it, see `eva02.with_place`. WeightsError if names and shapes do not belong together.
    """
    state = strip_wrappers(state)
    kind = family(state)
    if kind == "cvpods classifier" and wanted is not None and "network.linear.weight" in wanted:
        return dict(state), kind  # a folder of cvpods has these names itself
    try:
        renamed = _TRANSLATORS[kind](state)
    except (RuntimeError, IndexError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = str(error).splitlines()[0]
        raise WeightsError(f"its names are those of the {kind} family, but its shapes are not ({reason})") from None
    is_transformer = kind in ("eva02", "mmpretrain", "vit")
    return (eva02.with_place(renamed, wanted) if is_transformer and wanted is not None else renamed), kind


# ---- matching names of differing depth ------------------------------------------------------------------------------


def match_suffixes(
    ours: Mapping[str, torch.Size], theirs: Mapping[str, torch.Size], same: Callable[[torch.Size, torch.Size], bool]
) -> dict[str, str]:
    """Which tensor of a file belongs to which tensor of a model: {our name: their name}.

    A name matches when it is equal to ours or ends ours on a dot boundary; the longest match wins, and an equal name
    is never given to another. A tensor that several of ours claim only by their endings goes to the one whose shape
    is the `same`; WeightsError if that leaves more than one.
    """
    claims: dict[str, list[str]] = {}
    for name in ours:
        parts = name.split(".")
        endings = (".".join(parts[start:]) for start in range(len(parts)))
        best = next((ending for ending in endings if ending in theirs), None)
        if best is not None:
            claims.setdefault(best, []).append(name)
    matches: dict[str, str] = {}
    for their_name, claimants in claims.items():
        if their_name in claimants:
            claimants = [their_name]
        if len(claimants) > 1:
            claimants = [name for name in claimants if same(ours[name], theirs[their_name])]
        if len(claimants) > 1:
            raise WeightsError(
                f"{their_name!r} of the file fits {len(claimants)} tensors of the model, among them "
                f"{claimants[0]!r} and {claimants[1]!r}. Rename it in full, or leave it out of the file"
            )
        for name in claimants:
            matches[name] = their_name
    return matches
