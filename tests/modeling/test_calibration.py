import pytest
import torch

from cvpods_ext.modeling.calibration import Calibration, DisAlign
from cvpods_ext.modeling.classifiers import CosineClassifier, LinearClassifier

X = torch.tensor([[1.0, 2, -1, 0.5]])
W = torch.tensor([[0.1, 0.2, 0.3, 0.4], [-0.1, 0.5, 0.2, 0], [0.3, -0.3, 0.1, 0.2]])


def published(classifier):
    """DisAlign with the numbers of the published test case; background is the last of three logits."""
    aligned = DisAlign(classifier)
    with torch.no_grad():
        classifier.weight.copy_(W)
        aligned.logit_scale.copy_(torch.tensor([1.5, 0.5]))
        aligned.logit_bias.copy_(torch.tensor([0.2, -0.4]))
        aligned.confidence_layer.weight.copy_(torch.tensor([[0.1, -0.2, 0.3, 0.4]]))
        aligned.confidence_layer.bias.fill_(0.05)
    return aligned


def test_aligned_logits_of_a_linear_classifier_by_hand():
    linear = LinearClassifier(4, 2)
    linear.bias.data.copy_(torch.tensor([0.05, -0.05, 0.1]))
    aligned = published(linear)
    torch.testing.assert_close(linear(X), torch.tensor([[0.45, 0.65, -0.2]]))
    torch.testing.assert_close(aligned(X), torch.tensor([[0.625687, 0.350298, -0.2]]), atol=1e-6, rtol=0)


def test_aligned_logits_of_a_cosine_classifier_by_hand():
    cosine = CosineClassifier(4, 2)
    aligned = published(cosine)
    torch.testing.assert_close(cosine(X), torch.tensor([[5.842373, 10.224154, -5.004346]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(aligned(X), torch.tensor([[7.132617, 7.945558, -5.004346]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("classifier", [LinearClassifier, CosineClassifier])
def test_disalign_starts_as_the_identity(classifier):
    inner = classifier(16, 5)
    features = torch.randn(3, 16)
    torch.testing.assert_close(DisAlign(inner)(features), inner(features), rtol=0, atol=0)


def test_background_and_further_columns_are_left_alone():
    aligned = published(LinearClassifier(4, 2))
    logits = torch.randn(6, 5)
    changed = aligned.align(logits, torch.randn(6, 4))
    assert torch.equal(changed[:, 2:], logits[:, 2:])
    assert not torch.equal(changed[:, :2], logits[:, :2])


@pytest.mark.parametrize("classifier", [LinearClassifier, CosineClassifier])
def test_gradients_of_what_trains_are_those_of_finite_differences(classifier):
    aligned = published(classifier(4, 2)).double().requires_grad_(False)
    names = ("logit_scale", "logit_bias", "confidence_layer.weight", "confidence_layer.bias")
    values = [aligned.get_parameter(name).detach().requires_grad_() for name in names]
    features = torch.randn(3, 4, dtype=torch.float64)

    def run(*values):
        return torch.func.functional_call(aligned, dict(zip(names, values, strict=True)), (features,))

    assert torch.autograd.gradcheck(run, values)


def test_the_tensors_lie_beside_the_classifier():
    assert sorted(DisAlign(CosineClassifier(4, 2)).state_dict()) == [
        "cls_score.scale",
        "cls_score.weight",
        "confidence_layer.bias",
        "confidence_layer.weight",
        "logit_bias",
        "logit_scale",
    ]
    assert sorted(Calibration(LinearClassifier(4, 2)).state_dict()) == ["cls_score.bias", "cls_score.weight"]
