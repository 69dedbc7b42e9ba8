"""Long-tailed detection, instance and semantic segmentation and classification in self-contained experiment folders.

import cvpods_ext

cvpods_ext.list_models("eva02*")
model = cvpods_ext.load("playground/lvis1.0/...", weights="model_final.pth")
model.predict("photo.jpg").plot().save("found.png")
cvpods_ext.evaluate("playground/lvis1.0/...", weights="model_final.pth").metrics["segm"]["APr"]
print(cvpods_ext.compare("playground/lvis1.0"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Model", "__version__", "compare", "evaluate", "list_models", "load"]

if TYPE_CHECKING:
    from cvpods_ext.config.playground import list_models
    from cvpods_ext.engine.evaluate_here import evaluate
    from cvpods_ext.engine.predictor import Model, load
    from cvpods_ext.report.comparison import compare

_LIES_IN = {
    "list_models": "config.playground",
    "load": "engine.predictor",
    "Model": "engine.predictor",
    "evaluate": "engine.evaluate_here",
    "compare": "report.comparison",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for only then: torch alone takes a second."""
    if name not in _LIES_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LIES_IN[name]}"), name)
