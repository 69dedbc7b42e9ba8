"""Balanced group softmax."""

import numpy as np
import pytest
import torch
from loss_cases import COUNTS, assert_equals_reference, cross_entropy, lvis

from cvpods_ext.modeling.losses.bags import BalancedGroupSoftmax

GROUPS = [[4, 5], [2, 3], [0, 1]]  # of COUNTS: 9 and 1, 40 and 12, 900 and 300; none from 1000


def in_order(like):
    """The first others are kept."""
    return torch.linspace(0, 1, like.numel())


@pytest.mark.parametrize("ratio", [8.0, 1.0, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_value_and_gradient_equal_the_definition(seed, ratio):
    def reference(z, labels, context):
        total = np.mean([cross_entropy(z[r, 6:8], int(label < 6)) for r, label in enumerate(labels)])
        for g, classes in enumerate(GROUPS):
            columns = [*classes, 8 + g]
            members = [r for r, label in enumerate(labels) if label in classes]
            others = [r for r, label in enumerate(labels) if label not in classes][: int(len(members) * ratio)]
            rows = [
                cross_entropy(z[r, columns], classes.index(labels[r]) if labels[r] in classes else len(classes))
                for r in members + others
            ]
            total += np.mean(rows) if rows else 0.0
        return float(total)

    assert_equals_reference(BalancedGroupSoftmax(COUNTS, others_ratio=ratio, noise=in_order), reference, seed=seed)


@pytest.mark.parametrize(
    ("table", "sizes"), [("lvis_v1_train", [200, 412, 334, 257]), ("lvis_v0.5_train", [294, 453, 302, 181])]
)
def test_groups_of_lvis(table, sizes):
    _, instances, _ = lvis(table)
    loss = BalancedGroupSoftmax(instances)
    assert [len(loss.get_buffer(f"columns{g}")) - 1 for g in range(4)] == sizes
    assert loss.extra_logits == 5


def test_every_column_belongs_to_exactly_one_softmax():
    loss = BalancedGroupSoftmax(COUNTS)
    columns = torch.cat([loss.get_buffer(f"columns{g}") for g in range(loss.num_groups)]).tolist()
    assert sorted([*columns, 6, 7]) == list(range(6 + 1 + loss.extra_logits))


def test_others_are_drawn_anew_and_never_too_many():
    loss = BalancedGroupSoftmax(COUNTS, others_ratio=2)
    is_member = torch.zeros(100, dtype=torch.bool)
    is_member[:5] = True
    drawn = {tuple(loss._kept(is_member).nonzero()[:, 0].tolist()) for _ in range(10)}
    assert len(drawn) == 10
    assert all(len(rows) == 15 and rows[:5] == (0, 1, 2, 3, 4) for rows in drawn)
    assert not loss._kept(torch.zeros(10, dtype=torch.bool)).any()


def test_scores_multiply_the_group_softmax_with_foreground():
    loss = BalancedGroupSoftmax(torch.tensor([5.0, 50.0, 7.0]))
    logits = torch.zeros(1, 3 + 1 + loss.extra_logits)
    logits[0, 4] = np.log(3.0)  # foreground three times as likely as background
    assert loss.scores(logits).tolist() == [pytest.approx([0.25, 0.375, 0.25])]
