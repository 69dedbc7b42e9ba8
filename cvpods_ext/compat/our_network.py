"""The network of an old folder as a net.py of our builders would make it, where they can."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cvpods_ext.compat import fast_rcnn, heads, imagenet, roi_heads, rpn
from cvpods_ext.compat.backbone import ResNetBackbone, ResNetPyramid
from cvpods_ext.compat.configs import AttributeDict
from cvpods_ext.compat.rcnn import GeneralizedRCNN
from cvpods_ext.compat.resnet_settings import resnet_settings
from cvpods_ext.compat.translation import FixedValues, refused_values
from cvpods_ext.errors import ConfigError

# Old folders may set these, our builders have them as they are.
_FIXED: FixedValues = {
    "MODEL.RPN.IOU_THRESHOLDS": (([0.3, 0.7],), "our builders match anchors by these"),
    "MODEL.RPN.NMS_THRESH": ((0.7,), "our builders suppress proposals by it"),
    "MODEL.RPN.BBOX_REG_WEIGHTS": (((1.0, 1.0, 1.0, 1.0),), "our builders code boxes by these"),
    "MODEL.RPN.LOSS_WEIGHT": ((1.0,), "our builders add losses up"),
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": (([0.5],), "our builders match regions by it"),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": (((10.0, 10.0, 5.0, 5.0),), "our builders code boxes by these"),
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": ((False,), "our heads train on proposals"),
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": ((False,), "our builders give each class a mask"),
}
_CLASSIFIERS: dict[type, str] = {
    fast_rcnn.FastRCNNOutputLayers: "",
    fast_rcnn.CosineFastRCNNOutputLayers: "CosineClassifier(cfg.model.box_features, classes{scale})",
    fast_rcnn.DisAlignFastRCNNOutputLayers: "DisAlign(LinearClassifier(cfg.model.box_features, classes))",
    fast_rcnn.DisAlignCosineFastRCNNOutputLayers: (
        "DisAlign(CosineClassifier(cfg.model.box_features, classes{scale}))"
    ),
}
_BUILDERS = {True: "mask_rcnn_fpn", False: "faster_rcnn_fpn"}
_RESNET_DEFAULTS = dict(
    norm="FrozenBN", groups=1, width_per_group=64, stride_in_1x1=True, freeze_at=2, zero_residual=False
)
_SCALE = 20.0  # that a cosine classifier starts with
_BUILD, _CLASSES = "cvpods_ext.modeling.detection.build", "cvpods_ext.modeling.classification"


@dataclass(frozen=True)
class Network:
    """What net.py returns: a call with its arguments, one a line, and the imports that it needs, by module."""

    returns: str
    arguments: tuple[str, ...]
    imports: Mapping[str, tuple[str, ...]]
    config: str
    first: tuple[str, ...] = field(default=())
    """Lines before the call."""


def net_source(title: str, network: Network) -> str:
    """The text of net.py."""
    lines = [f'"""{title}."""', ""]
    lines += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(network.imports.items())]
    lines += ["", "", f"def build_model(cfg: {network.config}):", '    """Build the network that config.py trains."""']
    lines += [f"    {line}" for line in network.first]
    lines += [f"    return {network.returns}(", *(f"        {each}," for each in network.arguments), "    )", ""]
    return "\n".join(lines)


def candidates(model: nn.Module, config: AttributeDict) -> Iterator[Network]:
    """Networks of ours that may be `model`, one for each loss that it may have; ConfigError for one that is none.

    Its parts say what they are but for its loss, which is in code of the folder.
    """
    reasons = list(_reasons(model, config))
    if changed := getattr(model, "changed_settings", []):
        reasons.append(f"net.py changes settings: {', '.join(changed)}; write their values into config.py")
    if reasons:
        raise ConfigError("\n".join(["our builders do not make this network:", *reasons]))
    weighted = _exponent(config)
    for exponent in (None,) if weighted is None else (weighted, None):
        write = _detector if isinstance(model, GeneralizedRCNN) else _classifier
        yield write(model, config, exponent)


def _exponent(config: AttributeDict) -> float | None:
    """Of class frequencies in the weights of a second stage's loss, as published folders call it."""
    found = config.MODEL.get("GRW_SCALE", config.MODEL.get("ROI_BOX_HEAD", {}).get("GRW_SCALE"))
    return None if found is None else float(found)


def _reasons(model: nn.Module, config: AttributeDict) -> Iterator[str]:
    if isinstance(model, GeneralizedRCNN):
        yield from _detector_reasons(model, config)
    elif type(model) is not imagenet.Classification or type(model.network) is not ResNetBackbone:
        yield f"a {type(model).__name__} with a network of the folder's own"
    elif type(model.network.linear) not in (nn.Linear, imagenet.DisAlignLinear):
        yield f"network.linear is a {type(model.network.linear).__name__} of the folder's own"


def _detector_reasons(model: GeneralizedRCNN, config: AttributeDict) -> Iterator[str]:
    if type(model) is not GeneralizedRCNN:
        yield f"a {type(model).__name__} is a class of the folder's own"
    if not isinstance(model.roi_heads, roi_heads.StandardROIHeads):
        yield f"its heads, a {type(model.roi_heads).__name__}, are no StandardROIHeads"
        return
    found: Any = model.roi_heads
    for name, part, kinds in (
        ("backbone", model.backbone, (ResNetPyramid,)),
        ("proposal generator", model.proposal_generator, (rpn.RPN,)),
        ("box head", found.box_head, (heads.FastRCNNConvFCHead,)),
        ("mask head", found.mask_head, (heads.MaskRCNNConvUpsampleHead, type(None))),
        ("box predictor", found.box_predictor, tuple(_CLASSIFIERS)),
    ):
        if type(part) not in kinds:
            yield f"its {name}, a {type(part).__name__}, is a class of the folder's own"
    scale = getattr(getattr(found.box_predictor, "cls_score", None), "scale", None)
    if isinstance(scale, float):
        yield "the scale of its cosine classifier is constant, and that of ours is learned"
    yield from refused_values(config, _FIXED)


def _detector(model: Any, config: AttributeDict, exponent: float | None) -> Network:
    found: Any = model.roi_heads
    builder = _BUILDERS[found.mask_head is not None]
    imports: dict[str, set[str]] = {
        "cvpods_ext.config.detection": {"DetectionConfig"},
        "cvpods_ext.data.catalog": {"num_classes"},
        _BUILD: {builder},
    }
    arguments = ["cfg.model", "num_classes=classes", f"backbone={_pyramid(config, imports)}"]
    classifier = _CLASSIFIERS[type(found.box_predictor)]
    if classifier or exponent is not None:
        imports[_BUILD].add("BoxBranch")
        inner = []
        if classifier:
            inner.append(f"classifier={_filled(classifier, found.box_predictor, imports)}")
        if exponent is not None:
            imports["cvpods_ext.data.num_shots"] = {"class_counts"}
            imports["cvpods_ext.modeling.losses.grw"] = {"GroupReweightedCrossEntropy"}
            counts = "class_counts(cfg.data, cfg.folder)"
            inner.append(f"loss=GroupReweightedCrossEntropy({counts}, exponent={exponent!r})")
        arguments.append("\n            ".join(["box=BoxBranch(", *(f"{each}," for each in inner)]) + "\n        )")
    return Network(
        builder,
        tuple(arguments),
        _sorted(imports),
        "DetectionConfig",
        first=("classes = num_classes(cfg.data, cfg.folder)",),
    )


def _filled(text: str, predictor: Any, imports: dict[str, set[str]]) -> str:
    for name, module in (("DisAlign", "calibration"), ("CosineClassifier", "classifiers"), ("LinearC", "classifiers")):
        if name in text:
            full = "LinearClassifier" if name == "LinearC" else name
            imports.setdefault(f"cvpods_ext.modeling.{module}", set()).add(full)
    if "{scale}" not in text:
        return text
    scale = float(predictor.cls_score.scale.detach())
    return text.format(scale="" if scale == _SCALE else f", scale={scale!r}")


def _pyramid(config: AttributeDict, imports: dict[str, set[str]]) -> str:
    settings, fpn = _resnet_arguments(config), config.MODEL.FPN
    if fpn.NORM:
        imports["cvpods_ext.modeling.backbones.resnet"] = {"resnet"}
        imports["cvpods_ext.modeling.necks.fpn"] = {"FPN"}
        return f"FPN(resnet({', '.join(settings)}), {fpn.OUT_CHANNELS}, {_literal(fpn.NORM)})"
    imports["cvpods_ext.modeling.necks.fpn"] = {"resnet_fpn"}
    channels = [] if fpn.OUT_CHANNELS == 256 else [f"channels={fpn.OUT_CHANNELS}"]
    return f"resnet_fpn({', '.join([*settings, *channels])})"


def _resnet_arguments(config: AttributeDict) -> list[str]:
    found = resnet_settings(config)
    depth = found.pop("depth")
    changed = {key: value for key, value in found.items() if value != _RESNET_DEFAULTS[key]}
    return [str(depth), *(f"{key}={_literal(value)}" for key, value in changed.items())]


def _literal(value: Any) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _classifier(model: Any, config: AttributeDict, exponent: float | None) -> Network:
    width = model.network.channels[-1]
    imports: dict[str, set[str]] = {
        "cvpods_ext.config.classification": {"ClassificationConfig"},
        "cvpods_ext.data.classification": {"num_classes"},
        "cvpods_ext.modeling.backbones.resnet": {"resnet"},
        f"{_CLASSES}.backbone": {"MeanOfMap"},
        f"{_CLASSES}.build": {"image_classifier"},
    }
    arguments = [
        "cfg.model",
        f"backbone=MeanOfMap(resnet({', '.join(_resnet_arguments(config))}))",
        f"width={width}",
        "num_classes=classes",
    ]
    first = ["classes = num_classes(cfg.data, cfg.folder)"]
    if isinstance(model.network.linear, imagenet.DisAlignLinear):
        imports[f"{_CLASSES}.heads"] = {"DisAlignLinear"}
        arguments.append(f"head=DisAlignLinear({width}, classes)")
    if exponent is not None:
        imports["torch"] = {"from_numpy"}
        imports["cvpods_ext.data.classification_statistics"] = {"training_counts"}
        imports["cvpods_ext.modeling.losses.grw"] = {"GroupReweightedCrossEntropy"}
        imports[f"{_CLASSES}.losses"] = {"WithoutBackground"}
        first.append("counts = from_numpy(training_counts(cfg.data, cfg.folder))")
        arguments.append(f"loss=WithoutBackground(GroupReweightedCrossEntropy(counts, exponent={exponent!r}))")
    return Network("image_classifier", tuple(arguments), _sorted(imports), "ClassificationConfig", first=tuple(first))


def _sorted(imports: dict[str, set[str]]) -> dict[str, tuple[str, ...]]:
    return {module: tuple(sorted(names)) for module, names in imports.items()}
