"""Gumbel loss, alone and with DropLoss."""

import numpy as np
import pytest
import torch
from loss_cases import COUNTS, NUM_IMAGES, example
from recorded_methods import assert_equals_recorded, recorded

from cvpods_ext.modeling.losses.gol import GumbelDropLoss, GumbelLoss, gumbel_bce, gumbel_classifier


def entry(logit, is_positive):
    """Binary cross entropy of the Gumbel distribution, by its definition."""
    probability = np.exp(-np.exp(-np.clip(logit, -4, 10)))
    return -np.log(probability) if is_positive else -np.log(1 - probability)


def slope(logit, is_positive):
    """Its derivative as the released code has it: through p, with p (1 - p) at least 1e-12."""
    if not -4 <= logit <= 10:
        return 0.0
    decay = np.exp(-logit)
    probability = np.exp(-decay)
    return (probability - is_positive) / max(probability * (1 - probability), 1e-12) * probability * decay


def assert_equals_loops(loss, logits, labels, kept):
    """Value and gradient against loops over the columns of `kept` (R, K), which is 0 where a negative is left out."""
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, labels)
    value.backward()
    total, gradient = 0.0, np.zeros(tuple(logits.shape))
    for r, c in np.ndindex(*kept.shape):
        z, is_positive = logits[r, c].item(), labels[r].item() == c
        total += kept[r, c] * entry(z, is_positive) / len(labels)
        gradient[r, c] = kept[r, c] * slope(z, is_positive) / len(labels)
    assert value.item() == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_loops_over_all_columns(seed):
    logits, labels, _ = example(GumbelLoss(), seed=seed)
    assert (logits < -3.4).any()
    assert_equals_loops(GumbelLoss(), logits, labels, np.ones((12, 7)))


@pytest.mark.parametrize(("inputs", "outputs"), [("in026", "out042"), ("in028", "out046")])
def test_value_and_gradient_equal_the_released_code(inputs, outputs):
    assert_equals_recorded(GumbelLoss(), inputs, outputs, value=1e-6, gradient=1e-6)


def test_scores_equal_the_released_code():
    scores = GumbelLoss().scores(recorded("in029_logits"))
    torch.testing.assert_close(scores, recorded("out050_value"), rtol=1e-5, atol=1e-7)


def gradient_of(logit, target):
    logits = torch.tensor([[logit]], requires_grad=True)
    gumbel_bce(logits, torch.tensor([[target]])).backward()
    return logits.grad.item()


@pytest.mark.parametrize(
    ("logit", "gradient"),
    [  # -exp(-z), until p (1 - p) falls below 1e-12 at z = -3.32
        (-2.0, -7.389),
        (-3.0, -20.09),
        (-3.3, -27.1),
        (-3.5, -0.1375),  # -p exp(-z) / 1e-12 with p = exp(-33.1) = 4.151e-15
        (-5.0, 0.0),  # clamped
    ],
)
def test_the_gradient_of_a_positive_ends_where_binary_cross_entropy_clamps(logit, gradient):
    assert gradient_of(logit, 1.0) == pytest.approx(gradient, rel=2e-3)


def test_the_gradient_of_a_negative_is_that_of_the_formula():
    # d/dz -ln(1 - p) = p exp(-z) / (1 - p) with p = exp(-exp(-z)): at z = 0 1 / (e - 1)
    assert gradient_of(0.0, 0.0) == pytest.approx(1 / (np.e - 1), rel=1e-5)


def test_the_loss_of_the_batch_is_limited_not_the_entry():
    # both rows: class 0 of two columns. Row 1 is right: -ln p = exp(-5), -ln(1 - p) of z = -4 is 0.
    wrong, right = [-3.3, -4.0], [5.0, -4.0]
    logits = torch.tensor([wrong, right], requires_grad=True)
    loss = GumbelLoss()(logits, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx((np.exp(3.3) + np.exp(-5)) / 2, rel=1e-5)  # 13.56, though an entry is 27.1
    assert logits.grad[0, 0].item() == pytest.approx(-np.exp(3.3) / 2, rel=1e-3)
    alone = torch.tensor([wrong], requires_grad=True)
    limited = GumbelLoss()(alone, torch.tensor([0]))
    limited.backward()
    assert limited.item() == 20
    assert alone.grad.tolist() == [[0, 0]]


def test_a_training_starts_near_nine_with_background_among_the_columns():
    # 1,203 columns of negatives are nearly free at z = -2: one positive costs exp(2) = 7.389, a negative 0.000618
    logits = torch.full((4, 1204), -2.0)
    labels = torch.tensor([0, 7, 1203, 1203])
    assert GumbelLoss()(logits, labels).item() == pytest.approx(np.exp(2) + 1203 * 0.0006182, abs=1e-3)


def test_the_classifier_starts_at_constants():
    classifier = gumbel_classifier(8, 3)
    assert torch.equal(classifier.weight, torch.full((4, 8), 0.001))
    assert torch.equal(classifier.bias, torch.full((4,), -2.0))


def test_logits_that_are_not_numbers_reach_the_loss():
    assert GumbelLoss()(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0])).isnan()


@pytest.mark.parametrize("drawn", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_dropped_negatives_equal_the_definition(drawn, seed):
    rare = COUNTS / NUM_IMAGES < 0.02
    loss = GumbelDropLoss(COUNTS, NUM_IMAGES, threshold=0.02, uniform=lambda like: torch.full_like(like, drawn))
    logits, labels, _ = example(loss, seed=seed)
    share = np.mean([bool(rare[label]) for label in labels if label < 6])
    kept = np.ones((12, 6))  # background is no column
    for r, label in enumerate(labels):
        for c in range(6):
            kept[r, c] = not (rare[c] and label != c and (label < 6 or drawn > share))
    assert_equals_loops(loss, logits, labels, kept)


def test_without_foreground_nothing_is_dropped():
    loss = GumbelDropLoss(COUNTS, NUM_IMAGES, threshold=0.02, uniform=torch.ones_like)
    assert not loss.dropped(torch.zeros(3, 6)).any()


def test_scores_are_the_unclamped_distribution():
    scores = GumbelLoss().scores(torch.tensor([[0.0, -np.log(np.log(2.0)), 0.0]]))
    assert scores.tolist() == [pytest.approx([np.exp(-1), 0.5])]
