"""Pixel losses against loops and by hand."""

import math

import pytest
import torch
import torch.nn.functional as F

from cvpods_ext.modeling.segmentation.losses import (
    LogitAdjustedPixelCrossEntropy,
    PixelCrossEntropy,
    WeightedPixelCrossEntropy,
    pixel_accuracy,
)

COUNTS = torch.tensor([100.0, 10.0, 1.0])
LABELS = torch.tensor([[[0, 1, 255], [2, 255, 255]]])


def case():
    return torch.randn(1, 3, 2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True), LABELS


def log_probability(logits, y, x):
    return F.log_softmax(logits[0, :, y, x], dim=0)


def test_the_mean_is_over_all_pixels_the_ignored_ones_too():
    logits, labels = case()
    total = sum(-log_probability(logits, y, x)[label] for (y, x), label in {(0, 0): 0, (0, 1): 1, (1, 0): 2}.items())
    torch.testing.assert_close(PixelCrossEntropy()(logits, labels), total / 6)


def test_weights_follow_the_counts_and_the_mean_is_over_labelled_pixels():
    logits, labels = case()
    weights = torch.tensor([0.1, 10**-0.5, 1.0])  # count ** -0.5
    parts = [(0, 0, 0), (0, 1, 1), (1, 0, 2)]
    total = sum(-weights[label] * log_probability(logits, y, x)[label] for y, x, label in parts)
    torch.testing.assert_close(WeightedPixelCrossEntropy(COUNTS)(logits, labels), total / weights.sum())


def test_logit_adjustment_adds_the_log_of_the_share_in_training_only():
    logits, labels = case()
    shift = torch.tensor([math.log(100 / 111), math.log(10 / 111), math.log(1 / 111)])
    expected = PixelCrossEntropy()(logits + shift[:, None, None], labels)
    torch.testing.assert_close(LogitAdjustedPixelCrossEntropy(COUNTS)(logits, labels), expected)


@pytest.mark.parametrize("loss", [PixelCrossEntropy, WeightedPixelCrossEntropy, LogitAdjustedPixelCrossEntropy])
def test_a_crop_without_labels_costs_nothing_and_has_gradients(loss):
    logits, _ = case()
    made = loss() if loss is PixelCrossEntropy else loss(COUNTS)
    value = made(logits, torch.full((1, 2, 3), 255))
    assert value == 0
    value.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_accuracy_leaves_ignored_pixels_out():
    logits = torch.zeros(1, 3, 2, 3)
    logits[0, 0] = 1
    assert pixel_accuracy(logits, LABELS).item() == pytest.approx(100 / 3)
    assert pixel_accuracy(logits, torch.full((1, 2, 3), 255)).item() == 100
