"""Seesaw loss: mitigation, compensation, objectness."""

import numpy as np
import pytest
import torch
from loss_cases import COUNTS, assert_equals_reference, cross_entropy, example
from recorded_methods import assert_equals_recorded, recorded

from cvpods_ext.modeling.losses.seesaw import SeesawLoss
from cvpods_ext.modeling.losses.stateful import synchronize


def factors_by_hand(row, label, seen, p=0.8, q=2.0):
    """S_ij of one foreground row by equations 4 to 6."""
    softmax = np.exp(row) / np.exp(row).sum()
    factors = np.ones(len(row))
    for j in range(len(row)):
        if j != label:
            ratio = max(seen[j], 1) / max(seen[label], 1)
            mitigation = ratio**p if ratio < 1 else 1.0
            relative = softmax[j] / max(softmax[label], 0.01)
            factors[j] = mitigation * (relative**q if relative > 1 else 1.0)
    return factors


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_the_definition(seed, training):
    loss = SeesawLoss(6).train(training)
    loss.seen.copy_(COUNTS)
    base, labels, _ = example(loss, seed=seed)
    base = base.detach().numpy()
    seen = COUNTS + torch.bincount(labels, minlength=7)[:6] if training else COUNTS
    # No gradient flows through S: the reference keeps it at the logits where the derivative is taken.
    fixed = [
        factors_by_hand(base[r, :6], label, seen.tolist()) if label < 6 else None for r, label in enumerate(labels)
    ]

    def reference(z, labels, context):
        total = 0.0
        for r, label in enumerate(labels):
            if label < 6:
                total += cross_entropy(z[r, :6] + np.log(fixed[r]), label)
            total += cross_entropy(z[r, 6:], int(label < 6))
        return total / len(z)

    assert_equals_reference(loss, reference, seed=seed)


def test_four_steps_equal_the_released_code():
    loss = SeesawLoss(1203)
    for step in range(4):
        assert_equals_recorded(loss, f"in{step:03d}", f"out{2 * step:03d}", value=1e-6, gradient=2e-6)
        synchronize([loss])


def test_scores_equal_the_released_code():
    scores = SeesawLoss(1203).scores(recorded("in003_logits"))
    torch.testing.assert_close(scores, recorded("out008_value"), rtol=1e-5, atol=1e-7)


def test_compensation_is_limited_by_the_smallest_score():
    loss = SeesawLoss(2, p=0)
    row = torch.tensor([[0.0, 40.0]])  # the score of class 0 is about 4e-18
    factor = loss.log_factors(row, torch.tensor([0]), loss.seen)
    assert factor.tolist() == [[0, pytest.approx(2 * np.log(100), rel=1e-5)]]


def test_a_forward_pass_counts_its_own_labels_before_it_weighs_them():
    loss = SeesawLoss(2, q=0)
    # N = (3, 1): the negative of a RoI of class 0 on class 1 weighs (1 / 3) ^ 0.8, that on class 0 of class 1 weighs 1.
    value = loss(torch.zeros(4, 4), torch.tensor([0, 0, 0, 1]))
    rare = np.log(1 + (1 / 3) ** 0.8)
    assert value.item() == pytest.approx((3 * rare + np.log(2) + 4 * np.log(2)) / 4)


def test_the_counts_of_a_step_begin_with_the_next_one_and_background_never_counts():
    loss = SeesawLoss(3)
    loss(torch.zeros(6, 5), torch.tensor([0, 0, 2, 3, 3, 3]))
    loss(torch.zeros(1, 5), torch.tensor([1]))  # another part of the same step
    assert loss.seen.tolist() == [0, 0, 0]
    synchronize([loss])
    assert loss.seen.tolist() == [2, 1, 1]
    synchronize([loss])
    assert loss.seen.tolist() == [2, 1, 1]


def test_without_powers_it_is_two_cross_entropies():
    loss = SeesawLoss(6, p=0, q=0)

    def reference(z, labels, context):
        foreground = sum(cross_entropy(z[r, :6], label) for r, label in enumerate(labels) if label < 6)
        return (foreground + sum(cross_entropy(z[r, 6:], int(label < 6)) for r, label in enumerate(labels))) / len(z)

    assert_equals_reference(loss, reference)


def test_scores_are_class_times_object():
    logits = torch.tensor([[1.0, 1.0, 0.0, np.log(3.0)]])
    assert SeesawLoss(2).scores(logits).tolist() == [pytest.approx([0.375, 0.375])]
