"""Sigmoid cross entropy and its helpers."""

import torch
from loss_cases import assert_equals_reference, bce

from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy, SigmoidWithBackgroundLoss, one_hot


def test_sigmoid_cross_entropy_equals_its_definition():
    def reference(z, labels, context):
        total = sum(bce(z[r, c], labels[r] == c) for r in range(len(z)) for c in range(z.shape[1] - 1))
        return total / len(z)

    assert_equals_reference(SigmoidCrossEntropy(), reference)


def test_one_hot_leaves_out_what_has_no_column():
    assert one_hot(torch.tensor([1, 2]), 2).tolist() == [[0, 1], [0, 0]]


def test_background_lowers_scores_where_it_is_trained_and_only_there():
    logits = torch.tensor([[0.0, 0.0]])
    assert SigmoidCrossEntropy().scores(logits).item() == 0.5
    assert SigmoidWithBackgroundLoss().scores(logits).item() == 0.25
