import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpods_ext.modeling.classifiers import CosineClassifier, LinearClassifier


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


def test_only_a_learned_scale_is_saved():
    assert list(CosineClassifier(8, 3).state_dict()) == ["weight", "scale"]
    constant = CosineClassifier(8, 3, learn_scale=False)
    assert list(constant.state_dict()) == ["weight"]
    assert constant(torch.randn(2, 8)).shape == (2, 4)


def test_cosine_similarities_keep_float32_under_autocast():
    cosine = CosineClassifier(64, 3)
    features = torch.randn(5, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = cosine(features.bfloat16())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, cosine(features.bfloat16().float()))


def test_extra_columns_come_after_background():
    assert LinearClassifier(8, 3, extra_logits=1)(torch.randn(2, 8)).shape == (2, 5)
    assert CosineClassifier(8, 3, extra_logits=2)(torch.randn(2, 8)).shape == (2, 6)
