"""EVA-02 for segmentation against a second computation with plain tensor operations."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.eva02 import RotaryTable, Size
from cvpods_ext.modeling.segmentation.backbone import TAPS, eva02_multi_scale

TINY = Size(32, 4, 2)


def tiny(**changes):
    return eva02_multi_scale(TINY, **{"taps": (0, 1, 2, 3), "crop_side": 64, **changes})


def test_the_class_token_is_not_rotated():
    table, x = RotaryTable(4, 8), torch.randn(1, 2, 17, 8)
    turned = table(x)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert torch.equal(turned[:, :, 1:], table(x[:, :, 1:]))


def slow_block(block, tokens):
    """A block written out, one head after the other."""
    attn, mlp, width = block.attn, block.mlp, tokens.shape[-1]
    x = F.layer_norm(tokens, (width,), block.norm1.weight, block.norm1.bias, 1e-6)
    q, k, v = x @ attn.q_proj.weight.T + attn.q_bias, x @ attn.k_proj.weight.T, x @ attn.v_proj.weight.T + attn.v_bias
    heads = []
    for head in torch.arange(width).chunk(attn.heads):
        scores = attn.rope(q[:, None][..., head]) @ attn.rope(k[:, None][..., head]).transpose(2, 3)
        heads.append((scores / math.sqrt(len(head))).softmax(-1)[:, 0] @ v[..., head])
    tokens = tokens + torch.cat(heads, dim=-1) @ attn.proj.weight.T + attn.proj.bias
    x = F.layer_norm(tokens, (width,), block.norm2.weight, block.norm2.bias, 1e-6)
    hidden = F.silu(mlp.w1(x)) * mlp.w2(x)
    return tokens + mlp.w3(F.layer_norm(hidden, hidden.shape[-1:], mlp.ffn_ln.weight, mlp.ffn_ln.bias, 1e-6))


@torch.no_grad()
def test_maps_are_outputs_of_the_taps_without_class_token_and_norm_in_four_scales():
    torch.manual_seed(0)
    model = eva02_multi_scale(Size(32, 6, 2), taps=(0, 2, 3, 5), crop_side=64).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    crops = torch.randn(2, 3, 64, 64)
    patches = F.conv2d(crops, model.patch_embed.proj.weight, model.patch_embed.proj.bias, stride=16)
    tokens = torch.cat((model.cls_token.expand(2, -1, -1), patches.flatten(2).transpose(1, 2)), 1) + model.pos_embed
    maps = []
    for i, block in enumerate(model.blocks):
        tokens = slow_block(block, tokens)
        if i in (0, 2, 3, 5):
            maps.append(tokens[:, 1:].transpose(1, 2).reshape(2, 32, 4, 4))
    up, up_again = model.fpn1[0], model.fpn1[3]
    first = F.conv_transpose2d(maps[0], up.weight, up.bias, stride=2)
    first = first * model.fpn1[1].weight[:, None, None] / math.sqrt(1 + 1e-5) + model.fpn1[1].bias[:, None, None]
    expected = [
        F.conv_transpose2d(F.gelu(first), up_again.weight, up_again.bias, stride=2),
        F.conv_transpose2d(maps[1], model.fpn2[0].weight, model.fpn2[0].bias, stride=2),
        maps[2],
        F.max_pool2d(maps[3], 2),
    ]
    for ours, theirs in zip(model(crops), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_recomputed_activations_change_no_gradient():
    torch.manual_seed(0)
    plain, thrifty = tiny(), tiny(recompute=True)
    thrifty.load_state_dict(plain.state_dict())
    crops = torch.randn(2, 3, 64, 64)
    for model in (plain, thrifty):
        sum(map_.square().mean() for map_ in model(crops)).backward()
    for one, other in zip(plain.parameters(), thrifty.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_crops_of_another_size_are_refused():
    with pytest.raises(ConfigError, match=r"crops of 48 x 64 pixels .* built for 64 x 64"):
        tiny()(torch.zeros(1, 3, 48, 64))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"taps": (0, 1, 2)}, "four ascending blocks from 0 to 3"),
        ({"taps": (0, 1, 2, 4)}, "four ascending blocks"),
        ({"taps": (1, 0, 2, 3)}, "four ascending blocks"),
        ({"crop_side": 80}, "multiple of 32"),
    ],
)
def test_wrong_settings_say_what_is_possible(wrong, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**wrong)


def test_an_unknown_size_names_the_known_ones():
    with pytest.raises(ConfigError, match="Ti, S, B, L"):
        eva02_multi_scale("XL")


def test_published_taps_end_with_the_last_block():
    assert TAPS["B"][-1] == 11
    assert TAPS["L"][-1] == 23
