import math

import pytest
import torch

from cvpods_ext.modeling.detr.losses import FederatedFocal, SigmoidFocal, VerifiedFocal
from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.structures import Targets


def entry(logit, positive):
    """Focal loss of one query and class by the formula."""
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log(1 - p)


LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
LABELS = torch.tensor([1, 3])  # the second query is background


def expected(columns):
    positive = [(0, 1)]
    return sum(entry(LOGITS[r, c].item(), (r, c) in positive) for r in range(2) for c in columns[r])


def test_focal_loss_is_summed_over_queries_and_classes():
    assert SigmoidFocal()(LOGITS, LABELS).item() == pytest.approx(expected([(0, 1, 2)] * 2), rel=1e-5)


def test_no_queries_cost_nothing():
    logits = torch.zeros(0, 3, requires_grad=True)
    for loss in (SigmoidFocal(), FederatedFocal(torch.ones(3), num_sampled=2)):
        value = loss(logits, torch.zeros(0, dtype=torch.int64))
        assert value.item() == 0
        value.backward()


def test_the_federated_loss_asks_about_classes_of_the_batch_and_the_drawn_ones():
    # class 1 and background are in the batch; one more is drawn, without noise the one with most images
    loss = FederatedFocal(torch.tensor([5.0, 1.0, 9.0]), num_sampled=3, noise=torch.zeros_like)
    assert loss(LOGITS, LABELS).item() == pytest.approx(expected([(1, 2)] * 2), rel=1e-5)


def test_the_verified_loss_asks_each_image_about_what_is_known_of_it():
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    one = Targets(torch.zeros(1, 4), torch.tensor([1]), 0, (8, 8), (8, 8), negative_labels=torch.tensor([0]))
    other = Targets(*nothing, 1, (8, 8), (8, 8), negative_labels=torch.tensor([2]))
    context = LossContext(torch.tensor([0, 1]), [one, other])
    assert VerifiedFocal()(LOGITS, LABELS, context).item() == pytest.approx(expected([(0, 1), (2,)]), rel=1e-5)


def test_scores_are_sigmoids():
    assert torch.equal(SigmoidFocal().scores(LOGITS), LOGITS.sigmoid())
