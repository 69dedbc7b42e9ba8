"""Effective class-margin loss."""

import numpy as np
import pytest
import torch
from loss_cases import COUNTS, assert_equals_reference, lvis
from recorded_methods import assert_equals_recorded, recorded

from cvpods_ext.modeling.losses.ecm import EffectiveClassMarginLoss, ExactEffectiveClassMarginLoss


@pytest.mark.parametrize("make", [EffectiveClassMarginLoss, ExactEffectiveClassMarginLoss])
def test_value_and_gradient_equal_the_form_with_two_exponentials(make):
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

    tolerance = 5e-6 if make is ExactEffectiveClassMarginLoss else 1e-3  # the smallest class has 1 of 9,251 RoIs
    for seed in range(3):
        assert_equals_reference(make(COUNTS), reference, seed=seed, tolerance=tolerance)


def test_weights_equal_those_of_the_released_code_to_the_last_bit():
    _, instances, _ = lvis("lvis_v1_train")
    weights = EffectiveClassMarginLoss(instances).weights
    assert torch.equal(weights, recorded("out057_value"))
    assert weights.min().item() == pytest.approx(0.31465155)
    assert weights.max().item() == pytest.approx(1.110051)


def test_value_and_gradient_equal_the_released_code():
    _, instances, _ = lvis("lvis_v1_train")
    assert_equals_recorded(EffectiveClassMarginLoss(instances), "in037", "out060", value=1e-6, gradient=1e-6)


def test_scores_equal_the_released_code():
    _, instances, _ = lvis("lvis_v1_train")
    scores = EffectiveClassMarginLoss(instances).scores(recorded("in038_logits"))
    torch.testing.assert_close(scores, recorded("out064_value"), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("table", "name", "weight", "margin"),
    [  # by the formulas, with the instance counts n and S = 7.3313 * 1,270,141
        ("lvis_v1_train", "banana", 0.997281, -1.3026),
        ("lvis_v1_train", "ambulance", 0.999999, -3.2069),
        ("lvis_v1_train", "applesauce", 1.0, -3.5252),
        ("lvis_v1_train", "zucchini", 0.999957, -2.3411),
    ],
)
def test_exact_weights_and_margins_on_lvis(table, name, weight, margin):
    _, instances, labels = lvis(table)
    loss = ExactEffectiveClassMarginLoss(instances)
    assert loss.weights[labels[name]].item() == pytest.approx(weight, abs=1e-6)
    assert loss.margins[labels[name]].item() == pytest.approx(margin, abs=1e-4)
    assert loss.weights[-1].item() == pytest.approx(0.31465, abs=1e-5)
    torch.testing.assert_close(loss.margins, EffectiveClassMarginLoss(instances).margins)


def test_scores_know_no_margin():
    logits = torch.zeros(1, 7)
    assert EffectiveClassMarginLoss(COUNTS).scores(logits).tolist() == [[0.25] * 6]
