import math

import pytest
import torch

from cvpods_ext.modeling.detr.equalized import AdjustedFocal, EqualizedFocal
from cvpods_ext.modeling.detr.losses import FederatedFocal, SigmoidFocal, VerifiedFocal
from cvpods_ext.modeling.losses.base import LossContext
from cvpods_ext.modeling.losses.stateful import synchronize
from cvpods_ext.modeling.posthoc import logit_adjustment
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


def equalized(positive, negative, gamma=2.0, scale=8.0):
    """Equalized focal loss of LOGITS by its formula, and the gradients it adds, with these sums of before."""
    total, added = 0.0, [[0.0] * 3, [0.0] * 3]
    for c in range(3):
        ratio = min(1.0, positive[c] / negative[c]) if negative[c] else 1.0
        exponent = gamma + scale * (1 - ratio)
        for r in range(2):
            right = (r, c) == (0, 1)
            z = LOGITS[r, c].item() if right else -LOGITS[r, c].item()
            p, weight = 1 / (1 + math.exp(-z)), (0.25 if right else 0.75) * exponent / gamma
            total += -weight * (1 - p) ** exponent * math.log(p)
            step = 1e-6
            above, below = (1 / (1 + math.exp(-(z + d))) for d in (step, -step))
            slope = ((1 - above) ** exponent * math.log(above) - (1 - below) ** exponent * math.log(below)) / (2 * step)
            added[0 if right else 1][c] += weight * slope
    return total, added


def test_the_equalized_focal_loss_is_its_formula_and_accumulates_its_own_gradients():
    loss = EqualizedFocal(3).train()
    assert loss(LOGITS, LABELS).item() == pytest.approx(SigmoidFocal()(LOGITS, LABELS).item(), rel=1e-6)
    synchronize([loss])
    _, added = equalized([0.0] * 3, [0.0] * 3)
    assert loss.positive_gradients.tolist() == pytest.approx(added[0], rel=1e-4)
    assert loss.negative_gradients.tolist() == pytest.approx(added[1], rel=1e-4)
    total, more = equalized(added[0], added[1])
    assert loss(LOGITS, LABELS).item() == pytest.approx(total, rel=1e-4)
    synchronize([loss])
    assert loss.negative_gradients.tolist() == pytest.approx([a + b for a, b in zip(added[1], more[1], strict=True)])


def test_gradients_of_the_equalized_focal_loss_are_what_it_accumulates():
    logits = LOGITS.clone().requires_grad_()
    loss = EqualizedFocal(3).train()
    loss.positive_gradients[:] = torch.tensor([0.0, 1.0, 3.0])
    loss.negative_gradients[:] = torch.tensor([2.0, 2.0, 2.0])
    loss(logits, LABELS).backward()
    pending = loss.take_pending("positive_gradients") + loss.take_pending("negative_gradients")
    torch.testing.assert_close(logits.grad.abs().sum(dim=0), pending)


def test_a_test_accumulates_nothing_and_the_memory_is_part_of_the_state():
    loss = EqualizedFocal(3).eval()
    loss(LOGITS, LABELS)
    synchronize([loss])
    assert loss.negative_gradients.sum() == 0
    assert loss.state_dict().keys() == {"positive_gradients", "negative_gradients"}


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]], requires_grad=True)
    loss = EqualizedFocal(3).train()
    loss.negative_gradients[:] = 1.0
    loss(logits, LABELS).backward()
    assert logits.grad.isfinite().all()
    synchronize([loss])
    assert loss.negative_gradients.isfinite().all()


def test_adjusted_scores_lift_rare_classes_and_keep_the_order_within_a_class():
    loss = AdjustedFocal(logit_adjustment(torch.tensor([100.0, 10.0, 1.0])))
    assert loss(LOGITS, LABELS).item() == pytest.approx(SigmoidFocal()(LOGITS, LABELS).item(), rel=1e-6)
    shift = math.log(10)
    assert loss.scores(LOGITS)[0, 2].item() == pytest.approx(1 / (1 + math.exp(-0.5 - shift)), rel=1e-5)
    assert loss.scores(LOGITS)[0, 0].item() == pytest.approx(1 / (1 + math.exp(-1.0 + shift)), rel=1e-5)
    assert torch.equal(loss.scores(LOGITS).argsort(dim=0), LOGITS.argsort(dim=0))
