import math

import torch

from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy

LOGITS = torch.tensor([[2.0, 1, 0, -1, 0.5], [0, 0, 1, 0, 2], [1, 0, 0, 3, 0]])


def test_the_mean_runs_over_all_rois_by_hand():
    assert abs(SoftmaxCrossEntropy()(LOGITS, torch.tensor([0, 4, 3])).item() - 0.4660442) < 1e-6


def test_a_uniform_guess_costs_the_log_of_the_number_of_columns():
    loss = SoftmaxCrossEntropy()(torch.zeros(7, 1204), torch.arange(7))
    assert abs(loss.item() - math.log(1204)) < 1e-5


def test_no_rois_cost_nothing_and_keep_the_graph():
    logits = torch.zeros(0, 5, requires_grad=True)
    SoftmaxCrossEntropy()(logits, torch.zeros(0, dtype=torch.int64)).backward()
    assert logits.grad is not None


def test_scores_drop_background():
    scores = SoftmaxCrossEntropy().scores(LOGITS)
    assert scores.shape == (3, 4)
    torch.testing.assert_close(scores.sum(dim=1), 1 - LOGITS.softmax(dim=1)[:, -1])
