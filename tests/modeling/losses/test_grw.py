import csv

import pytest
import torch
import torch.nn.functional as F
from shared import shared

from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy, grw_weights

COUNTS = torch.tensor([1000.0, 100, 10, 1])
LOGITS = torch.tensor([[2.0, 1, 0, -1, 0.5], [0, 0, 1, 0, 2], [1, 0, 0, 3, 0]])
LABELS = torch.tensor([0, 4, 3])


@pytest.mark.parametrize(
    ("exponent", "weights"),
    [
        (0.8, [0.01340892, 0.08460455, 0.53381864, 3.36816789]),
        (0.7, [0.02547393, 0.12767209, 0.63987619, 3.20697779]),
        (1.2, [9.41373765e-4, 1.49197687e-2, 0.236462399, 3.74767646]),
        (0.0, [1.0, 1, 1, 1]),
    ],
)
def test_weights_by_hand(exponent, weights):
    torch.testing.assert_close(grw_weights(COUNTS, exponent), torch.tensor(weights), rtol=1e-6, atol=0)


def test_weights_of_real_lvis_classes():
    with open(shared("data/lvis_v1_train_categories.csv"), newline="") as file:
        rows = {int(row["id"]): float(row["instance_count"]) for row in csv.DictReader(file)}
    weights = grw_weights(torch.tensor([rows[i] for i in sorted(rows)]), 0.8)
    position = {category: i for i, category in enumerate(sorted(rows))}
    for category, expected in ((45, 0.00156), (8, 0.68933), (13, 1.90854), (1203, 0.04317)):
        assert abs(weights[position[category]].item() - expected) < 1e-5


def test_the_loss_divides_by_the_sum_of_weights_by_hand():
    loss = GroupReweightedCrossEntropy(COUNTS, 0.8)(LOGITS, LABELS)
    assert abs(loss.item() - 0.3251515) < 1e-6


def test_the_loss_is_the_weighted_mean_written_out():
    loss = GroupReweightedCrossEntropy(COUNTS, 0.8)
    each = F.cross_entropy(LOGITS, LABELS, reduction="none")
    weights = torch.cat((grw_weights(COUNTS, 0.8), torch.ones(1)))[LABELS]
    torch.testing.assert_close(loss(LOGITS, LABELS), (weights * each).sum() / weights.sum())


def test_a_class_without_examples_counts_as_one():
    torch.testing.assert_close(grw_weights(torch.tensor([5.0, 0]), 0.8), grw_weights(torch.tensor([5.0, 1]), 0.8))


def test_weights_are_not_part_of_the_state_dict():
    assert GroupReweightedCrossEntropy(COUNTS).state_dict() == {}
