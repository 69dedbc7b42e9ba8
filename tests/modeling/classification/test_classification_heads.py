"""Heads and losses of image classification: values by hand, the identity of starts, and what detection's losses see."""

import math

import pytest
import torch
import torch.nn.functional as F

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.classification.heads import CosineHead, DisAlignCosine, DisAlignLinear, LinearHead
from cvpods_ext.modeling.classification.losses import LogitAdjusted, SmoothedCrossEntropy, WithoutBackground
from cvpods_ext.modeling.losses.bags import BalancedGroupSoftmax
from cvpods_ext.modeling.losses.balanced_softmax import BalancedSoftmax
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.losses.seesaw import SeesawLoss
from cvpods_ext.modeling.posthoc import logit_adjustment


def test_disalign_of_two_classes_is_the_formula_by_hand():
    head = DisAlignLinear(1, 2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        head.bias.copy_(torch.tensor([0.5, 0.25]))
        head.logit_scale.copy_(torch.tensor([[2.0, 1.0]]))
        head.logit_bias.copy_(torch.tensor([[0.0, 4.0]]))
        head.confidence_layer.weight.fill_(math.log(3.0))  # a feature of 1 has the confidence 3 / 4
    logits = head(torch.tensor([[1.0]]))
    assert torch.allclose(logits, torch.tensor([[(1 + 1.5) * 1.5, (1 + 0.75) * -1.75 + 3.0]]))


@pytest.mark.parametrize(("plain", "calibrated"), [(LinearHead, DisAlignLinear), (CosineHead, DisAlignCosine)])
def test_disalign_starts_with_one_factor_for_all_logits_of_an_image(plain, calibrated):
    first, second = plain(6, 4), calibrated(6, 4)
    missing, unexpected = second.load_state_dict(first.state_dict(), strict=False)
    assert not unexpected
    assert sorted(missing) == ["confidence_layer.bias", "confidence_layer.weight", "logit_bias", "logit_scale"]
    features = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    factor = 1 + (0.1 * features.sum(dim=1, keepdim=True)).sigmoid()
    assert torch.allclose(second(features), factor * first(features), atol=1e-5)


@pytest.mark.parametrize("head", [DisAlignLinear(6, 4), DisAlignCosine(6, 4)])
def test_everything_of_disalign_gets_a_gradient(head):
    F.cross_entropy(head(torch.randn(3, 6)), torch.tensor([0, 1, 3])).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())


def test_a_cosine_head_ignores_the_length_of_features():
    head = CosineHead(6, 4)
    features = torch.randn(5, 6)
    assert torch.allclose(head(features), head(7 * features), atol=1e-4)
    assert torch.isfinite(head(torch.zeros(1, 6))).all()


COUNTS = torch.tensor([100.0, 10.0, 1.0])


@pytest.mark.parametrize(
    "loss",
    [GroupReweightedCrossEntropy(COUNTS, exponent=0.8), BalancedSoftmax(COUNTS)],
    ids=lambda loss: type(loss).__name__,
)
def test_background_changes_nothing_of_a_softmax_over_classes(loss):
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 0, 1, 2, 2])
    on_images = WithoutBackground(loss)
    assert torch.allclose(on_images.scores(logits), logits.softmax(dim=1))
    found = on_images(logits, labels)
    if isinstance(loss, BalancedSoftmax):
        expected = F.cross_entropy(logits + COUNTS.log(), labels)
    else:
        expected = F.cross_entropy(logits, labels, weight=COUNTS**-0.8)
    assert torch.allclose(found, expected, atol=1e-6)
    found.backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", [SeesawLoss(3), BalancedGroupSoftmax(COUNTS)], ids=lambda loss: type(loss).__name__)
def test_a_loss_that_needs_more_logits_is_refused(loss):
    with pytest.raises(ConfigError, match="logits beside the classes"):
        WithoutBackground(loss)


def test_logit_adjustment_divides_probabilities_by_counts_and_leaves_training_alone():
    loss = LogitAdjusted(logit_adjustment(COUNTS))
    logits = torch.randn(4, 3)
    divided = logits.softmax(dim=1) / COUNTS
    assert torch.allclose(loss.scores(logits), divided / divided.sum(dim=1, keepdim=True))
    labels = torch.tensor([0, 1, 2, 1])
    assert torch.equal(loss(logits, labels), SmoothedCrossEntropy()(logits, labels))
    assert not loss.state_dict()  # weights of the plain experiment fill the network
