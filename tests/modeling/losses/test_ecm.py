"""Effective class-margin loss."""

import numpy as np
import pytest
import torch
from loss_cases import COUNTS, assert_equals_reference, lvis

from cvpods_ext.modeling.losses.ecm import EffectiveClassMarginLoss


def test_value_and_gradient_equal_the_form_with_two_exponentials():
    counts = np.append(COUNTS.double().numpy(), 6.3313 * COUNTS.sum().item())
    others = counts.sum() - counts
    positive_margin = -np.log(others**0.25 / (counts**0.25 + others**0.25))
    negative_margin = -np.log(counts**0.25 / (counts**0.25 + others**0.25))
    weight = others / counts * np.log(1 + counts / others)

    def reference(z, labels, context):
        total = 0.0
        for r in range(len(z)):
            for c in range(7):
                up, down = np.exp(z[r, c] + positive_margin[c]), np.exp(-z[r, c] + negative_margin[c])
                total -= weight[c] * np.log((up if labels[r] == c else down) / (up + down))
        return total / len(z)

    for seed in range(3):
        assert_equals_reference(EffectiveClassMarginLoss(COUNTS), reference, seed=seed, tolerance=5e-6)


@pytest.mark.parametrize(
    ("table", "name", "weight", "margin"),
    [
        ("lvis_v1_train", "banana", 0.999662, -1.8249),
        ("lvis_v1_train", "ambulance", 0.999996, -2.9244),
        ("lvis_v1_train", "applesauce", 0.999999, -3.3506),
        ("lvis_v1_train", "zucchini", 0.999985, -2.5985),
        ("lvis_v0.5_train", "acorn", 0.999999, -3.3780),
        ("lvis_v0.5_train", "banana", 0.999679, -1.8378),
    ],
)
def test_weights_and_margins_on_lvis(table, name, weight, margin):
    images, _, labels = lvis(table)
    loss = EffectiveClassMarginLoss(images)
    assert loss.weights[labels[name]].item() == pytest.approx(weight, abs=1e-6)
    assert loss.margins[labels[name]].item() == pytest.approx(margin, abs=1e-4)
    assert loss.weights[-1].item() == pytest.approx(0.31465, abs=1e-5)
    assert loss.weights[:-1].min() > 0.9996


def test_scores_know_no_margin():
    logits = torch.zeros(1, 7)
    assert EffectiveClassMarginLoss(COUNTS).scores(logits).tolist() == [[0.25] * 6]
