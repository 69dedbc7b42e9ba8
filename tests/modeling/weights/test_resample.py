"""Transformer weights of another patch size or grid."""

import torch
from torch import nn
from torch.nn import functional as F
from weight_cases import model_of

from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.resample import resample


def test_constant_tables_and_kernels_stay_constant():
    kernel = resample("patch_embed.proj.weight", torch.full((2, 3, 14, 14), 0.7), torch.Size((2, 3, 16, 16)))
    table = resample("pos_embed", torch.full((1, 1 + 16 * 16, 2), 0.3), torch.Size((1, 1 + 14 * 14, 2)))
    torch.testing.assert_close(kernel, torch.full((2, 3, 16, 16), 0.7))
    torch.testing.assert_close(table, torch.full((1, 197, 2), 0.3))


def test_the_class_token_stays_and_the_grid_keeps_its_orientation():
    rows = torch.arange(16.0).repeat_interleave(16)
    table = torch.cat([torch.tensor([-100.0]), rows])[None, :, None]
    resized = resample("backbone.net.pos_embed", table, torch.Size((1, 197, 1)))
    assert resized is not None
    assert resized[0, 0, 0] == -100
    grid = resized[0, 1:, 0].reshape(14, 14)
    assert torch.all(grid[1:] > grid[:-1])  # rows still grow downwards
    torch.testing.assert_close(grid[:, 0], grid[:, -1])  # and are constant along x


def test_what_is_no_patch_kernel_or_table_is_not_touched():
    assert resample("conv.weight", torch.ones(2, 3, 14, 14), torch.Size((2, 3, 16, 16))) is None
    assert resample("patch_embed.proj.weight", torch.ones(2, 3, 14, 14), torch.Size((4, 3, 16, 16))) is None
    assert resample("pos_embed", torch.ones(1, 200, 2), torch.Size((1, 197, 2))) is None


def test_loading_resamples_and_says_so():
    model = model_of(
        {"net.patch_embed.proj.weight": torch.zeros(2, 3, 16, 16), "net.blocks.0.attn.q_bias": torch.zeros(2)}
    )
    kernel = torch.randn(2, 3, 14, 14)
    report = load_into(model, {"patch_embed.proj.weight": kernel, "blocks.0.attn.q_proj.bias": torch.ones(2)}, "timm")
    assert report.reshaped == ["net.patch_embed.proj.weight"]
    assert isinstance(model, nn.Module)
    expected = F.interpolate(kernel, size=(16, 16), mode="bicubic", align_corners=False)
    assert torch.equal(model.state_dict()["net.patch_embed.proj.weight"], expected)
