"""Equalization loss."""

import pytest
import torch
from loss_cases import COUNTS, IMAGES, NUM_IMAGES, assert_equals_reference, bce, lvis

from cvpods_ext.modeling.losses.eql import EqualizationLoss


def test_rare_classes_get_no_negatives_from_foreground_rows_of_others():
    def reference(z, labels, context):
        total = 0.0
        for r in range(len(z)):
            for c in range(6):
                is_rare = COUNTS[c] / NUM_IMAGES < 0.02
                if labels[r] < 6 and is_rare and labels[r] != c:
                    continue
                total += bce(z[r, c], labels[r] == c)
        return total / len(z)

    for seed in range(3):
        assert_equals_reference(EqualizationLoss(COUNTS, NUM_IMAGES, threshold=0.02), reference, seed=seed)


@pytest.mark.parametrize(("table", "spared"), [("lvis_v1_train", 877), ("lvis_v0.5_train", 915)])
def test_how_many_classes_of_lvis_are_spared(table, spared):
    assert int(EqualizationLoss(lvis(table)[0], IMAGES[table]).is_rare.sum()) == spared


def test_background_rows_are_negatives_of_rare_classes_too():
    loss = EqualizationLoss(torch.tensor([1.0]), 1000)
    logits = torch.zeros(1, 2, requires_grad=True)
    loss(logits, torch.tensor([1])).backward()
    assert logits.grad.tolist() == [[0.5, 0]]
