"""EVA-02 Ti and S, which timm stores with fused layers.

Shapes: C = width, F = MLP width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

_FUSED = "attn.qkv.weight"


def split_fused(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take the fused layers of every block apart: attn.qkv (3 C, C) and the gated mlp.fc1 (2 F, C), gate first.

    Only blocks with a bias on queries alone (`attn.q_bias`) are EVA-02's; those of other transformers are left alone.
    """
    fused = [name.removesuffix(_FUSED) for name in state if name.endswith(_FUSED)]
    blocks = {block for block in fused if f"{block}attn.q_bias" in state}
    apart: dict[str, Tensor] = {}
    for name, value in state.items():
        block = next((start for start in _starts(name) if start in blocks), None)
        rest = name.removeprefix(block or "")
        if block is None:
            apart[name] = value
        elif rest == _FUSED:
            apart |= {f"{block}attn.{x}_proj.weight": part for x, part in zip("qkv", value.chunk(3), strict=True)}
        elif rest.startswith("mlp.fc1."):
            gate, linear = value.chunk(2)
            kind = rest.removeprefix("mlp.fc1.")
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
