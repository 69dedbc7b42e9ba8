"""UPerNet written a second time as functions of its state dict."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from cvpods_ext.modeling.segmentation.heads import CosineClassifier2d, FCNHead, UPerHead


def randomised(head):
    """Every parameter and statistic random, so that none can be left out unnoticed."""
    torch.manual_seed(0)
    for name, value in head.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand_like(value) * 0.5 + 0.1 if "running_var" in name else torch.randn_like(value) * 0.2)
    return head.eval()


def conv_bn_relu(state, name, x, padding):
    y = F.conv2d(x, state[f"{name}.conv.weight"], padding=padding)
    mean, variance = (state[f"{name}.bn.running_{kind}"][:, None, None] for kind in ("mean", "var"))
    weight, bias = (state[f"{name}.bn.{kind}"][:, None, None] for kind in ("weight", "bias"))
    return ((y - mean) / torch.sqrt(variance + 1e-5) * weight + bias).clamp(min=0)


def pooled_by_hand(x, cells):
    """Means over overlapping cells: cell i goes from floor(i n / cells) to ceil((i + 1) n / cells)."""
    height, width = x.shape[2:]
    rows = [(i * height // cells, math.ceil((i + 1) * height / cells)) for i in range(cells)]
    columns = [(i * width // cells, math.ceil((i + 1) * width / cells)) for i in range(cells)]
    return torch.stack(
        [torch.stack([x[:, :, a:b, c:d].mean(dim=(2, 3)) for c, d in columns], dim=-1) for a, b in rows], dim=-2
    )


def up(x, like):
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


@torch.no_grad()
def test_the_decoder_equals_a_second_implementation():
    head = randomised(UPerHead([5, 6, 7, 8], 4, 3))
    state = head.state_dict()
    torch.manual_seed(1)
    maps = [torch.randn(2, 5, 16, 16), torch.randn(2, 6, 8, 8), torch.randn(2, 7, 4, 4), torch.randn(2, 8, 2, 2)]
    pooled = [
        up(conv_bn_relu(state, f"psp_modules.{i}.1", pooled_by_hand(maps[3], cells), 0), maps[3])
        for i, cells in enumerate((1, 2, 3, 6))
    ]
    levels = [conv_bn_relu(state, f"lateral_convs.{i}", maps[i], 0) for i in range(3)]
    levels.append(conv_bn_relu(state, "bottleneck", torch.cat([maps[3], *pooled], 1), 1))
    for i in (2, 1, 0):
        levels[i] = levels[i] + up(levels[i + 1], levels[i])
    outputs = [conv_bn_relu(state, f"fpn_convs.{i}", levels[i], 1) for i in range(3)] + [levels[3]]
    fused = conv_bn_relu(state, "fpn_bottleneck", torch.cat([up(x, maps[0]) for x in outputs], 1), 1)
    expected = F.conv2d(fused, state["conv_seg.weight"], state["conv_seg.bias"])
    torch.testing.assert_close(head(maps), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_auxiliary_head_is_one_convolution_and_a_classifier():
    head = randomised(FCNHead(5, 4, 3))
    state, x = head.state_dict(), torch.randn(2, 5, 4, 4)
    expected = F.conv2d(conv_bn_relu(state, "convs.0", x, 1), state["conv_seg.weight"], state["conv_seg.bias"])
    torch.testing.assert_close(head(x), expected, rtol=1e-4, atol=1e-5)


def test_whole_channels_are_dropped_in_training():
    head = UPerHead([4] * 4, 64, 64, dropout=0.5, classifier=nn.Identity()).train()
    maps = [torch.randn(2, 4, side, side) for side in (8, 4, 2, 1)]
    nn.init.constant_(head.fpn_bottleneck.bn.bias, 5.0)  # so that no channel is zero by itself
    out = head(maps)
    dropped = (out == 0).all(dim=(2, 3))
    assert 0 < dropped.float().mean() < 1
    assert (out[~dropped] != 0).float().mean() > 0.9


@torch.no_grad()
def test_cosine_logits_ignore_the_length_of_features_and_weights():
    classifier = CosineClassifier2d(6, 3, scale=20)
    x = torch.randn(2, 6, 4, 4)
    logits = classifier(x)
    assert logits.abs().max() <= 20.001
    expected = 20 * F.cosine_similarity(x[0, :, 1, 2][None], classifier.weight, dim=1)
    torch.testing.assert_close(logits[0, :, 1, 2], expected)
    classifier.weight[1] *= 7
    torch.testing.assert_close(classifier(3 * x), logits)
