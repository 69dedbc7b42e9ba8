"""Methods of cvpods' classes that this engine does not call: a folder that overrides one would not get its own."""

from __future__ import annotations

from typing import Any

from torch import nn

from cvpods_ext.compat import heads, imagenet, rcnn, roi_heads, rpn
from cvpods_ext.errors import ConfigError

_UNCALLED: dict[type, tuple[str, ...]] = {
    rcnn.GeneralizedRCNN: (
        "forward",
        "inference",
        "preprocess_image",
        "visualize_training",
        "_postprocess",
        "losses",
        "detect",
    ),
    rpn.RPN: ("forward", "losses", "predict_proposals", "inference", "_get_ground_truth"),
    roi_heads.StandardROIHeads: (
        "forward",
        "forward_with_given_boxes",
        "_forward_mask",
        "_forward_keypoint",
        "label_and_sample_proposals",
        "_sample_proposals",
        "losses",
        "detect",
    ),
    heads.MaskRCNNConvUpsampleHead: ("forward", "layers", "losses"),
    imagenet.Classification: ("forward", "inference", "preprocess_image", "losses", "predict"),
}


def require_called(model: nn.Module) -> None:
    """ConfigError for the first method that a class of the folder overrides and that is never called here."""
    for module in model.modules():
        for adapter, names in _UNCALLED.items():
            if not isinstance(module, adapter):
                continue
            for kind in type(module).__mro__[: type(module).__mro__.index(adapter)]:
                if name := next((name for name in names if name in vars(kind)), ""):
                    raise ConfigError(
                        f"{_place(vars(kind)[name])}: {kind.__name__}.{name} would never be called: this engine calls "
                        f"its own {adapter.__name__}. Subclasses may override what docs/old_folders.md lists; for "
                        "anything else move the folder (pods_import) and change our class"
                    )


def _place(method: Any) -> str:
    code = getattr(method, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else getattr(method, "__module__", "net.py")
