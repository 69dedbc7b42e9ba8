"""EVA-02 under the names of its authors, of timm and of mmpretrain, whose layers are fused in different ways.

Shapes: C = width, F = MLP width.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from torch import Tensor

from cvpods_ext.errors import WeightsError

_FUSED = "attn.qkv.weight"
_FUSED_MLPS = ("mlp.fc1.", "mlp.w12.")  # of timm, of the authors' Ti and S and of mmpretrain
KEY_BIAS = "attn.k_proj.bias"
# What lies around the blocks; in front of all names if a detector has no place for it.
OUTSIDE = re.compile(r"(norm|fc_norm|head|lm_head|rope)\.|(cls|mask)_token$|.*\brope\b")

_TIMM = (
    (r"(.*\bmlp\.)fc1_g\.(.+)", r"\1w1.\2"),
    (r"(.*\bmlp\.)fc1_x\.(.+)", r"\1w2.\2"),
    (r"(.*\bmlp\.)fc2\.(.+)", r"\1w3.\2"),
    (r"(.*\bmlp\.)norm\.(.+)", r"\1ffn_ln.\2"),
    (r"(.*\battn\.)([qv])_proj\.bias", r"\1\2_bias"),
)
_MMPRETRAIN = (
    (r"backbone\.layers\.(.+)", r"backbone.blocks.\1"),
    (r"backbone\.patch_embed\.projection\.(.+)", r"backbone.patch_embed.proj.\1"),
    (r"backbone\.ln2\.(.+)", r"backbone.fc_norm.\1"),
    (r"head\.fc\.(.+)", r"backbone.head.\1"),
)


def timm_name(name: str) -> str:
    """EVA-02's own name of a tensor of timm's EVA-02."""
    return _renamed(name, _TIMM)


def _renamed(name: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, ours in rules:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(ours)
    return name


def from_mmpretrain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of an mmpretrain classifier the names of timm, with a bias of queries, keys and values each."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        ours = _renamed(name, _MMPRETRAIN).removeprefix("backbone.")
        if ours.endswith("attn.qkv.bias"):
            start = ours.removesuffix("qkv.bias")
            parts = zip(("q_bias", "k_proj.bias", "v_bias"), value.chunk(3), strict=True)
            renamed |= {start + part: values for part, values in parts}
        else:
            renamed[ours] = value
    return renamed


def split_fused(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the fused layers of every block apart: attn.qkv (3 C, C) and the gated MLP's first (2 F, C), gate first.

    Only blocks with a bias on queries alone (`attn.q_bias`) are EVA-02's; those of other transformers are left alone.
    """
    fused = [name.removesuffix(_FUSED) for name in state if name.endswith(_FUSED)]
    blocks = {block for block in fused if f"{block}attn.q_bias" in state}
    apart: dict[str, Tensor] = {}
    for name, value in state.items():
        block = next((start for start in _starts(name) if start in blocks), None)
        rest = name.removeprefix(block or "")
        mlp = next((prefix for prefix in _FUSED_MLPS if rest.startswith(prefix)), None)
        if block is None:
            apart[name] = value
        elif rest == _FUSED:
            apart |= {f"{block}attn.{x}_proj.weight": part for x, part in zip("qkv", value.chunk(3), strict=True)}
        elif mlp is not None:
            gate, linear = value.chunk(2)
            kind = rest.removeprefix(mlp)
            apart |= {f"{block}mlp.w1.{kind}": gate, f"{block}mlp.w2.{kind}": linear}
        else:
            apart[name] = value
    return apart


def _starts(name: str) -> Iterator[str]:
    """ "", "blocks.", "blocks.0.", ... of "blocks.0.attn.qkv.weight"."""
    yield ""
    for position, letter in enumerate(name):
        if letter == ".":
            yield name[: position + 1]


def with_place(state: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """What a model with the tensors `wanted` has a place for.

    Of what lies around the blocks that is what the model has by the same name, or as its backbone's: a bare `norm.*`
    would otherwise match every norm of a detector by its suffix. A bias on keys that is zero changes nothing and is
    left out where the model has none; WeightsError for one that is not.
    """
    key_bias = any(name.endswith(KEY_BIAS) for name in wanted)
    kept: dict[str, Tensor] = {}
    for name, value in state.items():
        if OUTSIDE.match(name) and not {name, f"backbone.{name}"} & set(wanted):
            continue
        if name.endswith(KEY_BIAS) and not key_bias:
            _require_zero(name, value)
            continue
        kept[name] = value
    return kept


def _require_zero(name: str, bias: Tensor) -> None:
    if bias.any():
        raise WeightsError(
            f"it has a bias on keys ({name}, up to {bias.abs().max().item():.3g}), which moves the outputs and which "
            "EVA-02's authors and timm do not have: give the backbone of net.py key_bias=True"
        )
