"""torch.compile for the part of a detector that it suits: backbone and pyramid, whose work depends on sizes only."""

from __future__ import annotations

import os
import shutil

from torch import nn

from cvpods_ext.errors import ConfigError

_COMPILERS = ("g++", "clang++", "c++")


def compile_backbone(model: nn.Module) -> None:
    """Compile `model.backbone` in place when it first runs; names of parameters and buffers stay as they are.

    Raises ConfigError where there is no backbone, or no C++ compiler, without which torch would fail in the first step.
    """
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ConfigError(f"schedule.compile: {type(model).__name__} has no module called backbone; set it to False")
    wanted = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([wanted] if wanted else _COMPILERS)):
        looked_for = f"CXX={wanted}" if wanted else ", ".join(_COMPILERS)
        raise ConfigError(
            f"schedule.compile needs a C++ compiler, and none is on PATH ({looked_for}): install one "
            "(apt install g++), or set schedule.compile=False, which gives the same results"
        )
    backbone.compile()
