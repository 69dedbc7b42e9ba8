import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage, resnet
from cvpods_ext.modeling.layers import BatchNorm2d, Conv2d, FrozenBatchNorm2d, LayerNorm2d, make_norm
from cvpods_ext.modeling.necks.fpn import FPN, resnet_fpn


def with_random_statistics(norm):
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).copy_(torch.rand(norm.weight.shape) + 0.5)
    return norm


def test_a_fresh_frozen_norm_is_the_exact_identity():
    x = torch.randn(2, 5, 3, 3)
    assert torch.equal(FrozenBatchNorm2d(5)(x), x)
    assert sorted(FrozenBatchNorm2d(5).state_dict()) == ["bias", "running_mean", "running_var", "weight"]


def test_a_frozen_norm_equals_batch_norm_at_test_time():
    norm = with_random_statistics(FrozenBatchNorm2d(5))
    x = torch.randn(2, 5, 3, 3)
    expected = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-5)
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 2)])
def test_folding_a_frozen_norm_changes_neither_values_nor_gradients(stride, groups):
    conv = Conv2d(4, 6, 3, stride=stride, groups=groups, norm="FrozenBN", relu=True).double()
    assert conv.norm is not None
    with_random_statistics(conv.norm)
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64, requires_grad=True)
    plain = F.relu(conv.norm(F.conv2d(x, conv.weight, None, stride, 1, 1, groups)))
    torch.testing.assert_close(conv(x), plain)
    expected = torch.autograd.grad(plain.cos().sum(), [x, conv.weight])
    for ours, theirs in zip(torch.autograd.grad(conv(x).cos().sum(), [x, conv.weight]), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_batch_norm_learns_its_statistics_only_while_it_trains():
    norm = BatchNorm2d(3).train()
    norm(torch.randn(4, 3, 5, 5) + 7)
    assert norm.running_mean.min() > 0.3
    norm.requires_grad_(False)
    before = norm.running_mean.clone()
    x = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(norm(x), norm.eval()(x))
    assert torch.equal(norm.running_mean, before)


def test_layer_norm_works_over_channels():
    x = torch.randn(2, 6, 3, 4) * 5 + 3
    y = LayerNorm2d(6)(x)
    torch.testing.assert_close(y.mean(dim=1), torch.zeros(2, 3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(dim=1, correction=0), torch.ones(2, 3, 4), atol=1e-4, rtol=0)


def test_norms_by_name_and_the_message_for_an_unknown_one():
    assert make_norm("", 8) is None
    assert isinstance(make_norm("GN", 64), nn.GroupNorm)
    with pytest.raises(ConfigError, match=r"unknown norm 'SyncedBN'.*choose one of"):
        make_norm("SyncedBN", 8)


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032), (101, 42_500_160), (152, 58_143_808)],
)
def test_depths_have_the_parameters_of_torchvision_without_its_classifier(depth, parameters):
    with torch.device("meta"):
        model = resnet(depth, norm="BN")
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_resnext_101_32x8d_has_the_parameters_of_torchvision():
    with torch.device("meta"):
        model = resnet(101, norm="BN", groups=32, width_per_group=8, stride_in_1x1=False)
    assert sum(p.numel() for p in model.parameters()) == 86_742_336
    assert model.res3[0].conv2.stride == (2, 2)


def test_an_unknown_depth_is_refused():
    with pytest.raises(ConfigError, match="ResNet depth 51 does not exist: choose one of 18, 34, 50, 101, 152"):
        resnet(51)


def test_a_resnet_equals_torchvision_with_the_same_weights():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    theirs, ours = resnet18().eval(), resnet(18, norm="BN").eval()
    names = {"bn1": "conv1.norm", "bn2": "conv2.norm", "downsample.0": "shortcut", "downsample.1": "shortcut.norm"}
    state = {}
    for key, value in theirs.state_dict().items():
        parts = key.split(".")
        if parts[0] in ("conv1", "bn1"):
            state["stem." + key.replace("bn1", "conv1.norm")] = value
        elif parts[0].startswith("layer"):
            rest = ".".join(parts[2:])
            for old, new in names.items():
                rest = rest.replace(old, new)
            state[f"res{int(parts[0][-1]) + 1}.{parts[1]}.{rest}"] = value
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 64, 64)
    expected = theirs.layer4(
        theirs.layer3(theirs.layer2(theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x)))))))
    )
    torch.testing.assert_close(ours(x)[-1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("freeze_at", "frozen"), [(0, set()), (1, {"stem"}), (2, {"stem", "res2"}), (3, {"stem", "res2", "res3"})]
)
def test_leading_parts_are_frozen(freeze_at, frozen):
    model = ResNet([Stage(1, 8, 4)] * 4, stem_channels=8, norm="BN", freeze_at=freeze_at)
    assert {name.split(".")[0] for name, p in model.named_parameters() if not p.requires_grad} == frozen


def test_a_pyramid_halves_from_level_to_level_and_rounds_the_last_up():
    pyramid = FPN(ResNet([Stage(1, 8, 8)] * 4, stem_channels=8, bottleneck=False), 4)
    assert pyramid.strides == (4, 8, 16, 32, 64)
    assert pyramid.padded_size(33, 64) == (64, 64)
    shapes = [tuple(level.shape) for level in pyramid(torch.randn(1, 3, 96, 64))]
    assert shapes == [(1, 4, 24, 16), (1, 4, 12, 8), (1, 4, 6, 4), (1, 4, 3, 2), (1, 4, 2, 1)]


def test_models_build_on_the_meta_device():
    with torch.device("meta"):
        pyramid = resnet_fpn(50)
    assert all(p.is_meta for p in pyramid.parameters())
