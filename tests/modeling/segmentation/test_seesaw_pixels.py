"""Seesaw on pixels against a loop over pixels, its counts, and what is left out."""

import math

import pytest
import torch

from cvpods_ext.modeling.losses.stateful import synchronize
from cvpods_ext.modeling.segmentation.losses import SeesawPixelCrossEntropy, labelled_rows
from cvpods_ext.structures.segmentation import IGNORE


def by_hand(logits, labels, seen, p=0.8, q=2.0, smallest=0.01):
    """The definition, pixel by pixel; `seen` without the pixels at hand."""
    num_classes = logits.shape[1]
    counts = [float(seen[k]) + int((labels == k).sum()) for k in range(num_classes)]
    total = 0.0
    for n in range(len(labels)):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                own = int(labels[n, y, x])
                if own == IGNORE:
                    continue
                z = logits[n, :, y, x].double()
                scores = z.softmax(dim=0)
                weighted = 0.0
                for j in range(num_classes):
                    factor = 1.0
                    if j != own:
                        factor = min(1.0, max(counts[j], 1) / max(counts[own], 1)) ** p
                        factor *= max(1.0, float(scores[j]) / max(float(scores[own]), smallest)) ** q
                    weighted += factor * math.exp(float(z[j]))
                total += math.log(weighted) - float(z[own])
    return total / labels.numel()


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_definition_and_uses_the_counts_so_far(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = (3 * torch.randn(2, 4, 3, 5, generator=generator)).requires_grad_()
    labels = torch.randint(0, 3, (2, 3, 5), generator=generator)  # the last class does not occur
    labels[0, 0, :2] = IGNORE
    loss = SeesawPixelCrossEntropy(4)
    loss.seen += torch.tensor([100.0, 10.0, 1.0, 0.0])
    found = loss(logits, labels)
    assert found.item() == pytest.approx(by_hand(logits.detach(), labels, torch.tensor([100, 10, 1, 0])), rel=1e-5)
    found.backward()
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[0, :, 0, :2].any(), "an unlabelled pixel has no gradient"
    synchronize([loss])
    expected = torch.bincount(labels[labels != IGNORE], minlength=4) + torch.tensor([100, 10, 1, 0])
    assert torch.equal(loss.seen, expected.float())


def test_nothing_is_counted_at_test_time_and_without_labels_the_loss_is_zero():
    loss = SeesawPixelCrossEntropy(4).eval()
    loss(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))
    synchronize([loss])
    assert not loss.seen.any()
    logits = torch.zeros(1, 4, 2, 2, requires_grad=True)
    nothing = loss.train()(logits, torch.full((1, 2, 2), IGNORE))
    nothing.backward()
    assert nothing.item() == 0
    assert not logits.grad.any()


def test_labelled_rows_keep_the_order_of_pixels():
    logits = torch.arange(24.0).view(1, 2, 3, 4)
    labels = torch.tensor([[[0, 1, IGNORE, 0]] * 3])
    rows, own = labelled_rows(logits, labels)
    assert own.tolist() == [0, 1, 0] * 3
    assert rows[1].tolist() == [1.0, 13.0]
