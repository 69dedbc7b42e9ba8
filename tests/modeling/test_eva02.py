"""EVA-02 against timm and slow formulas; recorded outputs of its authors' code are in test_eva02_parity.py."""

import math

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.modeling.backbones.eva02 import RotaryTable, Size, SwiGLU, eva02, eva02_of
from cvpods_ext.modeling.backbones.vit import drop_path_rates, from_windows, to_windows
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.modeling.weights.load import load_into

TINY = Size(96, 4, 3)


def tiny(**changes):
    return eva02_of(TINY, **{"image_side": 128, "window": 4, "global_blocks": (1, 3), **changes})


def test_rotated_products_depend_on_distance_only():
    """<R(p) q, R(p + d) k> is the same wherever p lies, for the row and the column part."""
    table = RotaryTable(16, 8)
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8).expand(-1, -1, -1, 256, -1)
    scores = (table(query)[0, 0] @ table(key)[0, 0].T).view(16, 16, 16, 16)
    for dy, dx in ((0, 0), (3, 1), (5, 11)):
        same = scores[range(16 - dy), :, range(dy, 16)][:, range(16 - dx), range(dx, 16)]
        torch.testing.assert_close(same, same.flatten()[0].expand_as(same), rtol=1e-4, atol=1e-4)


@given(batch=st.integers(1, 2), height=st.integers(1, 9), width=st.integers(1, 9), side=st.integers(1, 5))
def test_windows_are_put_back_where_they_were_cut(batch, height, width, side):
    tokens = torch.randn(batch, height, width, 3)
    windows = to_windows(tokens, side)
    assert windows.shape == (batch * -(-height // side) * -(-width // side), side, side, 3)
    assert windows.square().sum().item() == pytest.approx(tokens.square().sum().item(), rel=1e-4)  # padded with zeros
    assert torch.equal(from_windows(windows, (height, width)), tokens)


@torch.no_grad()
def test_padding_of_windows_attends_and_is_attended_to():
    """A 3 x 3 window that holds 2 x 2 tokens: softmax runs over nine keys of which five are zero vectors."""
    torch.manual_seed(0)
    model = eva02_of(Size(16, 1, 2), image_side=32, window=3, global_blocks=())
    attn = model.blocks[0].attn
    nn.init.normal_(attn.q_bias)
    nn.init.normal_(attn.v_bias)
    tokens = torch.randn(1, 2, 2, 16)
    padded = torch.zeros(1, 3, 3, 16)
    padded[:, :2, :2] = tokens
    x = padded.view(9, 16)
    q = (x @ attn.q_proj.weight.T + attn.q_bias).view(9, 2, 8).transpose(0, 1)
    k = (x @ attn.k_proj.weight.T).view(9, 2, 8).transpose(0, 1)
    v = (x @ attn.v_proj.weight.T + attn.v_bias).view(9, 2, 8).transpose(0, 1)
    weights = (attn.rope(q[None])[0] @ attn.rope(k[None])[0].transpose(1, 2) / math.sqrt(8)).softmax(-1)
    expected = ((weights @ v).transpose(0, 1).reshape(9, 16) @ attn.proj.weight.T + attn.proj.bias).view(3, 3, 16)
    torch.testing.assert_close(model.blocks[0]._attend(tokens)[0], expected[:2, :2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("depth", [2, pytest.param(12, marks=pytest.mark.slow)])
@torch.no_grad()
def test_with_global_attention_only_it_equals_timm(depth):
    torch.manual_seed(0)
    theirs = timm.create_model("eva02_base_patch14_224", class_token=False, num_classes=0, depth=depth).eval()
    for name, parameter in theirs.named_parameters():  # norms and biases too, or a swap could hide
        nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.05)
    ours = eva02_of(
        Size(768, depth, 12), image_side=224, window=16, global_blocks=range(depth), patch=14, pretrained_grid=16
    ).eval()
    state = dict(theirs.state_dict())
    state["pos_embed"] = torch.cat((torch.zeros(1, 1, 768), state["pos_embed"]), dim=1)
    report = load_into(ours, state, "timm")
    assert not report.missing
    assert not report.skipped
    assert not report.unexpected
    images = torch.randn(1, 3, 224, 224)
    expected = theirs.forward_intermediates(images, indices=1, norm=False, intermediates_only=True)[-1]
    torch.testing.assert_close(ours(images), expected, rtol=1e-4, atol=1e-4)


def test_hidden_width_is_truncated():
    assert eva02_of(Size(1024, 1, 16), image_side=32, window=2, global_blocks=()).blocks[0].mlp.w1.out_features == 2730


def test_gated_mlp_by_hand():
    mlp = SwiGLU(1, 2, sub_norm=False)
    with torch.no_grad():
        for layer, weight, bias in ((mlp.w1, [[1.0], [2.0]], [0, 0]), (mlp.w2, [[3.0], [1.0]], [0, 1])):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
        mlp.w3.weight.fill_(1.0)
        mlp.w3.bias.zero_()
    silu = [x / (1 + math.exp(-x)) for x in (1.0, 2.0)]
    assert mlp(torch.ones(1, 1)).item() == pytest.approx(silu[0] * 3 + silu[1] * 2)


def test_stochastic_depth_has_the_published_rates():
    assert drop_path_rates(0.4, 3) == pytest.approx([0, 0.2, 0.4])
    blocks = tiny(drop_path=0.3).blocks
    assert isinstance(blocks[0].drop_path, nn.Identity)
    assert [block.drop_path.drop_prob for block in blocks[1:]] == pytest.approx([0.1, 0.2, 0.3])


def test_recomputed_activations_give_the_same_gradients_also_with_stochastic_depth():
    torch.manual_seed(0)
    model = tiny(drop_path=0.5).train()
    images = torch.randn(3, 3, 128, 128)
    gradients = []
    for recompute in (False, True):
        model.recompute = recompute
        model.zero_grad()
        torch.manual_seed(1)
        model(images).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_every_parameter_gets_a_gradient():
    model = SimplePyramid(tiny(), 16)
    sum(level.square().mean() for level in model(torch.randn(1, 3, 128, 128))).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_under_autocast_the_maps_stay_near_float32():
    torch.manual_seed(0)
    model, images = tiny().eval(), torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images)
    assert rough.isfinite().all()
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max()


def test_a_larger_image_is_refused_with_the_setting_to_change():
    with pytest.raises(DataError, match=r"130 x 90 pixels reached a transformer built for 128: set data\.test_size"):
        tiny().padded_size(130, 90)
    assert tiny().padded_size(112, 90) == (128, 128)


def test_unknown_sizes_sides_and_blocks_are_refused():
    with pytest.raises(ConfigError, match="size 'XL' does not exist: choose one of Ti, S, B, L"):
        eva02("XL", global_blocks=())
    with pytest.raises(ConfigError, match=r"data\.lsj_side=120 is not a multiple of the patch side 16"):
        tiny(image_side=120)
    with pytest.raises(ConfigError, match=r"names \[23\], but this transformer has blocks 0 to 3"):
        tiny(global_blocks=(3, 23))
    with pytest.raises(ConfigError, match="multiple of 32"):
        SimplePyramid(tiny(image_side=144))
