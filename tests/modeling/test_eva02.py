"""EVA-02 against recorded outputs of its authors' code, against timm, and against slow formulas."""

import math

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from shared import shared
from torch import nn

from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.modeling.backbones.eva02 import RotaryTable, Size, SwiGLU, eva02, eva02_of
from cvpods_ext.modeling.backbones.vit import drop_path_rates, from_windows, resize_positions, to_windows
from cvpods_ext.modeling.necks.simple_pyramid import SimplePyramid
from cvpods_ext.modeling.weights.load import load_into

TINY = Size(96, 4, 3)


def tiny(**changes):
    return eva02_of(TINY, **{"image_side": 128, "window": 4, "global_blocks": (1, 3), **changes})


@pytest.fixture(scope="module")
def golden():
    return np.load(shared("golden/eva_tiny/backbone.npz"))


@pytest.fixture(scope="module")
def ops():
    return np.load(shared("golden/ops/eva_ops.npz"))


@pytest.fixture(scope="module")
def published():
    state = load_file(shared("golden/eva_tiny/weights.safetensors"))
    model = SimplePyramid(tiny(), 32).eval()
    model.load_state_dict({k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")})
    return model


def close(ours, theirs, tolerance=5e-5):
    theirs = torch.from_numpy(np.asarray(theirs))
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours.detach(), theirs, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_every_recorded_tensor_of_the_backbone_is_reproduced(golden, published):
    seen = {}
    names = {
        "patch_embed": "patch_embed_out_BHWC",
        "blocks.0.norm1": "block0_window_norm1_out",
        "blocks.0.attn": "block0_window_attn_out",
        "blocks.0.mlp": "block0_window_mlp_out",
        "blocks.1.norm1": "block1_global_norm1_out",
        "blocks.1.attn": "block1_global_attn_out",
        "blocks.1.mlp": "block1_global_mlp_out",
        **{f"blocks.{i}": f"block{i}_out_BHWC" for i in range(4)},
        "": "last_feat",
    }
    for name, recorded in names.items():
        published.net.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, key=recorded: seen.__setitem__(key, output)
        )
    pyramid = published(torch.from_numpy(golden["preprocessed"]))
    for recorded in names.values():
        close(seen[recorded], golden[recorded])
    for level, map_ in enumerate(pyramid, start=2):
        close(map_, golden[f"p{level}"])
    close(resize_positions(published.net.pos_embed, (8, 8)), golden["abs_pos_8x8"], 1e-6)


def test_rotary_tables_are_those_of_the_checkpoint(golden):
    model = tiny()
    for name, table in (("win", model.rope_win), ("glb", model.rope_glb)):
        close(table.freqs_cos, golden[f"rope_{name}_cos"], 1e-6)
        close(table.freqs_sin, golden[f"rope_{name}_sin"], 1e-6)


@pytest.mark.parametrize(
    ("half", "side", "recorded"),
    [(16, 16, "16"), (16, 32, "32"), (32, 16, "16"), (32, 32, "32"), (32, 16, "None"), (32, 64, "64"), (32, 96, "96")],
)
def test_rotary_tables_of_published_geometries(ops, half, side, recorded):
    table, key = RotaryTable(side, 2 * half), f"rope_half{half}_pt16_ft{recorded}"
    rows = ops[f"{key}_rows"] if f"{key}_rows" in ops else np.arange(side * side)
    suffix = "_rows" if f"{key}_rows" in ops else ""
    # cos and sin of angles up to 16 differ by the float32 rounding of the angle
    close(table.freqs_cos[rows], ops[f"{key}_cos{suffix}"], 2e-6)
    close(table.freqs_sin[rows], ops[f"{key}_sin{suffix}"], 2e-6)


def test_rotation_turns_adjacent_pairs(ops):
    close(RotaryTable(4, 32)(torch.from_numpy(ops["rope_apply_in"])), ops["rope_apply_out_half16_pt16_ft4"], 1e-6)


def test_rotated_products_depend_on_distance_only():
    """<R(p) q, R(p + d) k> is the same wherever p lies, for the row and the column part."""
    table = RotaryTable(16, 8)
    torch.manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 8).expand(-1, -1, -1, 256, -1)
    scores = (table(query)[0, 0] @ table(key)[0, 0].T).view(16, 16, 16, 16)
    for dy, dx in ((0, 0), (3, 1), (5, 11)):
        same = scores[range(16 - dy), :, range(dy, 16)][:, range(16 - dx), range(dx, 16)]
        torch.testing.assert_close(same, same.flatten()[0].expand_as(same), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (64, 64), (96, 96), (14, 14), (10, 23)])
def test_position_tables_are_resized_as_recorded(ops, size):
    table = torch.from_numpy(ops["abs_pos_in_1x197x8"])
    close(resize_positions(table, size), ops[f"abs_pos_out_{size[0]}x{size[1]}"], 1e-5)


def test_windows_are_cut_as_recorded_and_put_back(ops):
    tokens = torch.from_numpy(ops["win_in"])
    windows = to_windows(tokens, 3)
    close(windows, ops["win3_out"], 0)
    assert torch.equal(from_windows(windows, (8, 10)), tokens)


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
    close(ours(images), expected.numpy(), 1e-4)


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


def test_unknown_sizes_and_sides_are_refused():
    with pytest.raises(ConfigError, match="size 'XL' does not exist: choose one of Ti, S, B, L"):
        eva02("XL", global_blocks=())
    with pytest.raises(ConfigError, match=r"data\.lsj_side=120 is not a multiple of the patch side 16"):
        tiny(image_side=120)
    with pytest.raises(ConfigError, match="multiple of 32"):
        SimplePyramid(tiny(image_side=144))
