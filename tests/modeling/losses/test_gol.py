"""Gumbel loss, alone and with DropLoss."""

import numpy as np
import pytest
import torch
from loss_cases import COUNTS, NUM_IMAGES, assert_equals_reference

from cvpods_ext.modeling.losses.gol import GumbelDropLoss, GumbelLoss, gumbel_bce


def entry(logit, is_positive):
    """Binary cross entropy of the Gumbel distribution, by its definition."""
    probability = np.exp(-np.exp(-np.clip(logit, -4, 10)))
    return -np.log(probability) if is_positive else -np.log(1 - probability)


def test_value_and_gradient_equal_the_definition():
    def reference(z, labels, context):
        total = sum(min(entry(z[r, c], labels[r] == c), 20) for r in range(len(z)) for c in range(6))
        return total / len(z)

    for seed in range(3):
        assert_equals_reference(GumbelLoss(), reference, seed=seed, tolerance=1e-5)


def test_entries_are_exact_where_the_probability_rounds_to_zero_and_one():
    logits = torch.tensor([[-4.0, 10.0, -9.0, 30.0]])
    both = [gumbel_bce(logits, torch.full_like(logits, value))[0].tolist() for value in (1.0, 0.0)]
    assert both[0] == pytest.approx([np.exp(4), np.exp(-10), np.exp(4), np.exp(-10)], rel=1e-5)
    assert both[1] == pytest.approx([0, 10, 0, 10], abs=1e-4)  # -ln(1 - exp(-exp(-10))) = 10.00002


def test_an_entry_is_capped():
    logits = torch.tensor([[-4.0, 0.0]])
    assert GumbelLoss()(logits, torch.tensor([0])).item() == 20
    assert GumbelLoss(cap=1e9)(logits, torch.tensor([0])).item() == pytest.approx(np.exp(4))


@pytest.mark.parametrize("drawn", [0.0, 0.3, 0.9])
def test_dropped_negatives_equal_the_definition(drawn):
    rare = COUNTS / NUM_IMAGES < 0.02

    def reference(z, labels, context):
        foreground = [label for label in labels if label < 6]
        share = np.mean([bool(rare[label]) for label in foreground]) if foreground else None
        total = 0.0
        for r, label in enumerate(labels):
            for c in range(6):
                dropped = rare[c] and label != c and (label < 6 or (share is not None and drawn > share))
                total += 0.0 if dropped else entry(z[r, c], label == c)
        return total / len(z)

    loss = GumbelDropLoss(COUNTS, NUM_IMAGES, threshold=0.02, uniform=lambda like: torch.full_like(like, drawn))
    for seed in range(3):
        assert_equals_reference(loss, reference, seed=seed, tolerance=1e-5)


def test_without_foreground_nothing_is_dropped():
    loss = GumbelDropLoss(COUNTS, NUM_IMAGES, threshold=0.02, uniform=torch.ones_like)
    assert not loss.dropped(torch.zeros(3, 6)).any()


def test_scores_are_the_unclamped_distribution():
    scores = GumbelLoss().scores(torch.tensor([[0.0, -np.log(np.log(2.0)), 0.0]]))
    assert scores.tolist() == [pytest.approx([np.exp(-1), 0.5])]
