"""Equalization loss v2: weights follow the accumulated gradients."""

import numpy as np
import pytest
import torch
from loss_cases import assert_equals_reference, bce, example

from cvpods_ext.modeling.losses.eqlv2 import EqualizationLossV2
from cvpods_ext.modeling.losses.stateful import synchronize


def weights_by_hand(positive, negative, gamma=12.0, mu=0.8, alpha=4.0):
    """(positive weight, negative weight) of one class."""
    ratio = positive / (negative + 1e-10) if negative > 0 else 100.0
    f = 1 / (1 + np.exp(-gamma * (ratio - mu)))
    return 1 + alpha * (1 - f), f


def test_several_steps_equal_the_definition():
    loss = EqualizationLossV2(6)
    positive, negative = np.zeros(6), np.zeros(6)
    for seed in range(6):
        table = [weights_by_hand(*pair) for pair in zip(positive, negative, strict=True)] + [(1.0, 1.0)]

        def reference(z, labels, context, table=table):
            return sum(
                bce(z[r, c], labels[r] == c) * table[c][0 if labels[r] == c else 1]
                for r in range(len(z))
                for c in range(7)
            ) / len(z)

        assert_equals_reference(loss, reference, seed=seed, tolerance=1e-5)
        logits, labels, _ = example(loss, seed=seed)
        probability = 1 / (1 + np.exp(-logits.detach().numpy()))
        for r, label in enumerate(labels.tolist()):
            for c in range(6):
                if label == c:
                    positive[c] += table[c][0] * (1 - probability[r, c])
                else:
                    negative[c] += table[c][1] * probability[r, c]
        synchronize([loss])
        np.testing.assert_allclose(loss.positive_gradients, positive, rtol=1e-5)
        np.testing.assert_allclose(loss.negative_gradients, negative, rtol=1e-5)
    assert (positive / negative).min() < 0.8  # the weights have left their start


def test_at_the_start_all_weights_are_one():
    positive, negative = EqualizationLossV2(3).weights()
    assert positive.tolist() == [1, 1, 1, 1]
    assert negative.tolist() == [1, 1, 1, 1]


def test_a_suppressed_class_gets_strong_positives_and_weak_negatives():
    loss = EqualizationLossV2(2)
    loss.positive_gradients.copy_(torch.tensor([0.0, 50.0]))
    loss.negative_gradients.copy_(torch.tensor([10.0, 10.0]))
    positive, negative = loss.weights()
    assert positive.tolist() == pytest.approx([5, 1, 1], abs=1e-3)
    assert negative.tolist() == pytest.approx([0, 1, 1], abs=1e-3)


def test_the_statistics_hold_no_graph():
    loss = EqualizationLossV2(6)
    loss(*example(loss))
    synchronize([loss])
    assert loss.positive_gradients.sum() > 0
    assert not loss.positive_gradients.requires_grad
