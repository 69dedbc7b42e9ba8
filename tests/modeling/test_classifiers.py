import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpods_ext.modeling.classifiers import CosineClassifier, LinearClassifier, NormalizedClassifier, normalized


def test_a_linear_classifier_starts_near_uniform():
    torch.manual_seed(0)
    linear = LinearClassifier(1024, 1203)
    assert linear.weight.shape == (1204, 1024)
    assert abs(linear.weight.std().item() - 0.01) < 1e-4
    assert linear.bias.abs().sum() == 0


@settings(deadline=None)
@given(st.floats(0.01, 100))
def test_cosine_logits_do_not_depend_on_the_length_of_the_feature(factor):
    cosine, features = CosineClassifier(8, 3), torch.ones(2, 8)
    torch.testing.assert_close(cosine(features * factor), cosine(features), atol=1e-4, rtol=1e-4)


def test_cosine_logits_stay_within_the_scale_and_zero_features_are_finite():
    cosine = CosineClassifier(8, 3, scale=16.0)
    assert cosine(torch.randn(100, 8)).abs().max() <= 16.0 + 1e-4
    assert torch.equal(cosine(torch.zeros(1, 8)), torch.zeros(1, 4))


def test_the_published_tensors_of_a_cosine_classifier_are_weight_and_scale():
    assert list(CosineClassifier(8, 3).state_dict()) == ["weight", "scale"]


def test_normalised_logits_are_twenty_cosines_plus_a_trained_bias():
    torch.manual_seed(0)
    classifier = NormalizedClassifier(4, 2)
    assert [(name, tuple(p.shape)) for name, p in classifier.named_parameters()] == [("weight", (3, 4)), ("bias", (3,))]
    assert not classifier.bias.any()
    with torch.no_grad():
        classifier.weight.copy_(torch.tensor([[2.0, 0, 0, 0], [0, 0.5, 0, 0], [3, 4, 0, 0]]))
        classifier.bias.copy_(torch.tensor([0.0, 1, -1]))
    # the feature has length 5, so the cosines are 0.6, 0.8 and (9 + 16) / 25
    assert classifier(torch.tensor([[3.0, 4, 0, 0]])).tolist() == [pytest.approx([12, 17, 19], abs=1e-3)]


def test_a_length_is_divided_by_after_a_millionth_was_added():
    assert normalized(torch.tensor([[3e-6, 4e-6]]), dim=1).tolist() == [pytest.approx([0.5, 4 / 6])]


def test_the_gradient_of_a_feature_of_zeros_is_finite():
    classifier, feature = NormalizedClassifier(4, 2), torch.zeros(1, 4, requires_grad=True)
    classifier(feature).sum().backward()
    assert feature.grad.isfinite().all()


@pytest.mark.parametrize("make", [CosineClassifier, NormalizedClassifier])
def test_cosine_similarities_keep_float32_under_autocast(make):
    cosine = make(64, 3)
    features = torch.randn(5, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = cosine(features.bfloat16())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, cosine(features.bfloat16().float()))


def test_extra_columns_come_after_background():
    assert LinearClassifier(8, 3, extra_logits=1)(torch.randn(2, 8)).shape == (2, 5)
    assert CosineClassifier(8, 3, extra_logits=2)(torch.randn(2, 8)).shape == (2, 6)
    assert NormalizedClassifier(8, 3, extra_logits=1)(torch.randn(2, 8)).shape == (2, 5)
