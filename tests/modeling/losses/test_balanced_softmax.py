"""Balanced softmax and its sigmoid form."""

import numpy as np
import pytest
import torch
from loss_cases import COUNTS, NUM_IMAGES, assert_equals_reference, bce, cross_entropy

from cvpods_ext.modeling.losses.balanced_softmax import BalancedSigmoid, BalancedSoftmax
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy


def test_the_probability_of_a_class_is_weighted_by_its_count():
    def reference(z, labels, context):
        prior = np.append(COUNTS.double().numpy(), 1.0)
        weighted = prior * np.exp(z)
        return float(np.mean([-np.log(weighted[r, labels[r]] / weighted[r].sum()) for r in range(len(z))]))

    assert_equals_reference(BalancedSoftmax(COUNTS), reference)


def test_equal_counts_for_all_and_background_are_plain_cross_entropy():
    logits, labels = torch.randn(8, 4), torch.arange(8) % 4
    balanced = BalancedSoftmax(torch.full((3,), 7.0), background_count=7.0)
    torch.testing.assert_close(balanced(logits, labels), SoftmaxCrossEntropy()(logits, labels))


def test_scores_are_the_plain_softmax():
    logits = torch.randn(3, 7)
    assert torch.equal(BalancedSoftmax(COUNTS).scores(logits), logits.softmax(dim=1)[:, :-1])


def test_the_sigmoid_form_shifts_foreground_rows_only():
    odds = [count / NUM_IMAGES / (1 - count / NUM_IMAGES) for count in COUNTS.tolist()]

    def reference(z, labels, context):
        total = 0.0
        for r in range(len(z)):
            for c in range(6):
                shift = -np.log(1 / odds[c]) if labels[r] < 6 else 0.0
                total += bce(z[r, c] + shift, labels[r] == c)
        return total / len(z)

    assert_equals_reference(BalancedSigmoid(COUNTS, NUM_IMAGES), reference, tolerance=5e-6)


@pytest.mark.parametrize("counts", [[0.0, 5.0], [1000.0, 1000.0]])
def test_classes_in_no_image_or_in_all_give_finite_losses(counts):
    counts = torch.tensor(counts)
    logits, labels = torch.zeros(3, 3), torch.tensor([0, 1, 2])
    assert BalancedSigmoid(counts, 1000)(logits, labels).isfinite()
    assert BalancedSoftmax(counts)(logits, labels).isfinite()


def test_the_reference_of_cross_entropy_is_sound():
    assert cross_entropy(np.array([0.0, 0.0]), 0) == pytest.approx(np.log(2))
