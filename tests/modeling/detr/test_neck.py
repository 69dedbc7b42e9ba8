import torch

from cvpods_ext.modeling.detr.neck import ChannelMapper


def test_missing_levels_follow_from_the_raw_last_map():
    torch.manual_seed(0)
    neck = ChannelMapper((8, 16), 32, levels=4)
    maps = [torch.randn(1, 4, 20, 20), torch.randn(1, 8, 10, 9), torch.randn(1, 16, 5, 5)]  # the first is not used
    out = neck(maps)
    assert [tuple(x.shape) for x in out] == [(1, 32, 10, 9), (1, 32, 5, 5), (1, 32, 3, 3), (1, 32, 2, 2)]
    assert torch.equal(out[2], neck.extra_convs[0](maps[-1]))
    assert torch.equal(out[3], neck.extra_convs[1](out[2]))
    assert torch.equal(out[0], neck.convs[0](maps[1]))
