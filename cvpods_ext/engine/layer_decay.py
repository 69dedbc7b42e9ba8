"""Layer-wise learning-rate decay: pre-trained layers near the input move less than fresh layers near the output.

As in ViTDet and EVA-02 (https://arxiv.org/abs/2303.11331, appendix): with n blocks and decay d, patches and positions
learn at d^(n + 1) of the rate, block i at d^(n - i), everything else (pyramid, heads) at the full rate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from cvpods_ext.errors import ConfigError

_BLOCK = re.compile(r"backbone\..*?\bblocks\.(\d+)\.")
_INPUT = re.compile(r"backbone\.(.*\.)?(pos_embed|patch_embed)\b")


def layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """Parameter name -> factor in (0, 1] of the learning rate; ConfigError if the backbone has no blocks."""
    names = [name for name, _ in model.named_parameters()]
    depth = _depth(names)
    if depth == 0 and decay < 1:
        raise ConfigError(
            f"schedule.layer_decay={decay} needs a transformer backbone (parameters backbone...blocks.0...), which "
            "this model has not; set schedule.layer_decay=1.0"
        )
    return {name: decay ** (depth + 1 - _layer(name, depth)) for name in names}


def _depth(names: Iterable[str]) -> int:
    """Number of transformer blocks."""
    found = (_BLOCK.match(name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _layer(name: str, depth: int) -> int:
    """0 for the input, i + 1 for block i, depth + 1 for what follows or is no backbone."""
    if _INPUT.match(name):
        return 0
    block = _BLOCK.match(name)
    return int(block[1]) + 1 if block else depth + 1
