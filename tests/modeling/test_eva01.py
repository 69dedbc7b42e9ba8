import numpy as np
import pytest
import torch
from scipy.interpolate import interp1d

from cvpods_ext.modeling.backbones.eva01 import Size, eva01, spline_resize

TINY = Size(width=16, depth=2, heads=2, hidden=20, pretrained_grid=4)


def tiny(**changes):
    torch.manual_seed(0)
    return eva01(TINY, **dict(image_side=64, table_side=64, window=2, global_blocks=(1,), drop_path=0.0) | changes)


def test_the_spline_equals_scipy_channel_by_channel():
    table = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outwards = np.cumsum(1.0903078 ** np.arange(3))
    positions = np.concatenate((-outwards[::-1], [0.0], outwards))
    resized = spline_resize(table, 11)
    for channel in range(3):
        spline = interp1d(positions, table[:, channel].numpy(), kind="cubic", fill_value="extrapolate")
        assert np.allclose(resized[:, channel].numpy(), spline(np.arange(-5.0, 6.0)), atol=1e-10)


def test_the_spline_keeps_the_row_of_distance_zero():
    table = torch.randn(9, 2)
    assert torch.allclose(spline_resize(table, 15)[7], table[4], atol=1e-5)


def test_keys_have_no_bias():
    net = tiny()
    assert not any("k_bias" in name or name.endswith("qkv.bias") for name in net.state_dict())
    assert {"blocks.0.attn.q_bias", "blocks.0.attn.v_bias"} <= net.state_dict().keys()


def test_the_patch_embedding_is_never_trained():
    net = tiny()
    assert sorted(name for name, p in net.named_parameters() if not p.requires_grad) == [
        "patch_embed.proj.bias",
        "patch_embed.proj.weight",
    ]


@pytest.mark.parametrize("recompute", [False, True])
def test_recomputed_gradients_are_the_same(recompute):
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    net = tiny(recompute=recompute)
    net(images).square().mean().backward()
    plain = tiny(recompute=False)
    plain(images).square().mean().backward()
    for (name, one), other in zip(net.named_parameters(), plain.parameters(), strict=True):
        if one.requires_grad:
            assert torch.equal(one.grad, other.grad), name
