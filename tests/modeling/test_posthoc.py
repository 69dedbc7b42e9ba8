"""Calibrations without training: shifts, box-counting dimensions, standardised logits."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cvpods_ext.data import category_tables
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling import posthoc
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import CosineClassifier, LinearClassifier
from cvpods_ext.modeling.losses.bags import BalancedGroupSoftmax
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.ecm import EffectiveClassMarginLoss
from cvpods_ext.modeling.losses.seesaw import SeesawLoss
from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy

COUNTS = torch.tensor([900.0, 30, 2])
LOGITS = torch.tensor([[2.0, 1.0, 0.5, 1.5], [-1.0, 0.0, 3.0, 0.0]], dtype=torch.float64)


class Fixed(nn.Module):
    """A classifier that answers with what it is given."""

    num_classes, in_features = 3, 4

    def forward(self, features):
        return features


def calibrated(calibration, logits=LOGITS):
    return calibration.eval()(logits)


def test_norcal_divides_exponentials_by_powers_of_counts_and_normalises():
    gamma = 0.6
    weights = np.append(COUNTS.numpy() ** -gamma, 1.0) * np.exp(LOGITS.numpy())
    expected = weights / weights.sum(axis=1, keepdims=True)
    ours = calibrated(posthoc.LogitShift(Fixed(), posthoc.norcal(COUNTS, gamma))).softmax(dim=1)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_the_effective_number_form_equals_its_definition():
    expected = [-math.log((1 - 0.9999**n) / (1 - 0.9999)) for n in COUNTS.tolist()]
    assert posthoc.norcal_effective_number(COUNTS).tolist() == pytest.approx(expected, rel=1e-6)


def test_fracal_equals_its_two_step_definition():
    dimensions, images, strength = torch.tensor([1.9, 1.2, 1.0]).double(), 1000, 2.0
    bias = -np.log10(COUNTS.numpy() / images) - np.log10(3)
    p = np.exp(LOGITS.numpy() + np.append(bias, 0.0))
    p /= p.sum(axis=1, keepdims=True)
    p /= np.append(dimensions.numpy() ** strength, 1.0)
    p /= p.sum(axis=1, keepdims=True)
    shift = posthoc.fracal(COUNTS, images, dimensions, strength)
    ours = calibrated(posthoc.LogitShift(Fixed(), shift)).softmax(dim=1)
    np.testing.assert_allclose(ours, p, rtol=1e-5)


def test_fracal_without_dimensions_is_logit_adjustment_with_a_small_temperature():
    ours = posthoc.fracal(COUNTS, 1000, torch.ones(3))
    adjusted = posthoc.logit_adjustment(COUNTS, tau=1 / math.log(10))
    torch.testing.assert_close(ours - ours[0], adjusted - adjusted[0])


def test_a_shift_leaves_background_further_columns_and_training_alone():
    shift = posthoc.LogitShift(Fixed(), torch.tensor([1.0, 2.0, 3.0]))
    logits = torch.randn(2, 6)
    assert torch.equal(calibrated(shift, logits)[:, 3:], logits[:, 3:])
    assert torch.equal(shift.train()(logits), logits)
    assert "shift" not in shift.state_dict()


def test_equal_counts_change_no_ranking():
    shift = posthoc.logit_adjustment(torch.full((3,), 7.0))
    assert len(shift.unique()) == 1


def test_classes_without_examples_count_once():
    assert posthoc.logit_adjustment(torch.tensor([0.0, 1.0])).tolist() == [0, 0]


# ---- fractal dimension ----------------------------------------------------------------------------------------------


def dimension_by_hand(centres, grid=64):
    """Box counting with sets, and a fit by numpy."""
    if len(centres) < 4:
        return 1.0
    sides = [g for g in range(1, grid + 1) if g * g <= len(centres)]
    occupied = [len({(int(x * g), int(y * g)) for x, y in centres}) for g in sides]
    return max(1.0, np.polyfit(np.log(sides), np.log(occupied), 1)[0])


def test_dimensions_equal_counting_by_hand():
    generator = torch.Generator().manual_seed(0)
    sizes = [3, 4, 10, 300, 2000, 0]
    labels = torch.cat([torch.full((size,), c) for c, size in enumerate(sizes)])
    centres = torch.rand(len(labels), 2, generator=generator, dtype=torch.float64)
    centres[labels == 3, 1] = 0.5  # on a line
    ours = posthoc.fractal_dimensions(centres, labels, len(sizes))
    expected = [dimension_by_hand(centres[labels == c].tolist()) for c in range(len(sizes))]
    assert ours.tolist() == pytest.approx(expected, abs=1e-9)


def test_a_plane_has_two_dimensions_and_a_line_or_a_point_one():
    side = torch.linspace(0.001, 0.999, 70, dtype=torch.float64)
    plane = torch.cartesian_prod(side, side)
    line = torch.stack((torch.linspace(0, 1, 5000).double(), torch.full((5000,), 0.3).double()), dim=1)
    point = torch.full((5000, 2), 0.5, dtype=torch.float64)
    labels = torch.cat([torch.full((len(part),), c) for c, part in enumerate((plane, line, point))])
    dimensions = posthoc.fractal_dimensions(torch.cat((plane, line, point)), labels, 3)
    assert dimensions.tolist() == pytest.approx([2, 1, 1], abs=0.01)


# ---- LogN -----------------------------------------------------------------------------------------------------------


def test_logn_standardises_by_the_moments_of_all_batches():
    rows = torch.randn(1000, 4, dtype=torch.float64) * torch.tensor([1.0, 3.0, 0.5, 1.0]) + torch.tensor(
        [0.0, 5.0, -2.0, 0.0]
    )
    calibration = posthoc.ExactLogN(Fixed(), 3)
    for part in rows.split([1, 299, 0, 700]):
        calibration.accumulate(part)
    foreground = rows[:, :3].numpy()
    mean, deviation = foreground.mean(axis=0), foreground.std(axis=0)
    expected = (LOGITS.numpy()[:, :3] - (mean - mean.min())) / deviation
    ours = calibrated(calibration)
    np.testing.assert_allclose(ours[:, :3], expected, rtol=1e-5)
    assert torch.equal(ours[:, 3], LOGITS[:, 3].float())


@pytest.mark.parametrize("make", [posthoc.RunningLogN, posthoc.ExactLogN])
def test_logn_changes_nothing_before_it_has_seen_logits(make):
    assert torch.equal(calibrated(make(Fixed(), 3)), LOGITS.float())


def test_running_logn_equals_the_running_statistics_of_batch_norm():
    norm = nn.BatchNorm1d(3, momentum=0.05, affine=False).train()
    calibration = posthoc.RunningLogN(Fixed(), 3, momentum=0.05)
    generator = torch.Generator().manual_seed(0)
    for rows in (2, 300, 17, 512):
        logits = 3 * torch.randn(rows, 4, generator=generator) + torch.tensor([0.0, 5, -2, 9])
        norm(logits[:, :3])
        calibration.accumulate(logits)
    calibration.accumulate(torch.randn(1, 4))  # has no variance
    mean, variance = norm.running_mean, norm.running_var
    torch.testing.assert_close(calibration.moments(), (mean, variance))
    expected = (LOGITS[:, :3].float() - (mean - mean.min())) / variance.sqrt()
    ours = calibrated(calibration)
    torch.testing.assert_close(ours[:, :3], expected)
    assert torch.equal(ours[:, 3], LOGITS[:, 3].float())


def test_running_logn_covers_47_percent_of_the_way_in_one_pass_of_lvis():
    calibration = posthoc.RunningLogN(Fixed(), 1)
    logits = torch.tensor([[8.0, 0], [12.0, 0]])  # mean 10, variance 8
    for _ in range(12_521):
        calibration.accumulate(logits)
    share = 1 - (1 - 5e-5) ** 12_521
    assert share == pytest.approx(0.4653, abs=1e-4)
    mean, variance = calibration.moments()
    assert mean.item() == pytest.approx(10 * share, rel=1e-3)
    assert variance.item() == pytest.approx(1 + 7 * share, rel=1e-3)


@pytest.mark.parametrize("make", [posthoc.RunningLogN, posthoc.ExactLogN])
def test_logn_survives_saving(make):
    calibration, again = make(Fixed(), 3), make(Fixed(), 3)
    calibration.accumulate(torch.randn(50, 4))
    again.load_state_dict(calibration.state_dict())
    assert torch.equal(calibrated(calibration), calibrated(again))


# ---- sigmoid detectors and combinations -----------------------------------------------------------------------------


def test_fracal_of_sigmoids_equals_its_definition():
    dimensions, images = torch.tensor([1.9, 1.2, 1.0]).double(), 1000
    loss = posthoc.FracalSigmoid(SigmoidCrossEntropy(), COUNTS, images, dimensions)
    spread = dimensions.numpy() ** 2
    shift = -np.log10(COUNTS.numpy() / images) - np.log10(3) - np.log10(spread / spread.sum()) - np.log10(3)
    z = LOGITS.numpy()[:, :3]
    expected = 1 / (1 + np.exp(-z)) / (1 + np.exp(-(z + shift)))
    np.testing.assert_allclose(loss.scores(LOGITS), expected, rtol=1e-6)
    labels = torch.tensor([0, 3])
    assert loss(LOGITS, labels) == SigmoidCrossEntropy()(LOGITS, labels)


def test_fracal_of_sigmoids_refuses_a_softmax_loss():
    with pytest.raises(ConfigError, match=r"SoftmaxCrossEntropy trains a softmax; use LogitShift"):
        posthoc.FracalSigmoid(SoftmaxCrossEntropy(), COUNTS, 1000, torch.ones(3))


@pytest.mark.parametrize(
    "loss", [SigmoidCrossEntropy(), EffectiveClassMarginLoss(COUNTS), SeesawLoss(3), BalancedGroupSoftmax(COUNTS)]
)
def test_a_shift_against_background_is_refused_where_background_does_not_compete(loss):
    classifier = LinearClassifier(4, 3, extra_logits=getattr(loss, "extra_logits", 0))
    with pytest.raises(ConfigError, match="shifts classes against background"):
        posthoc.check_combination(posthoc.LogitShift(classifier, torch.zeros(3)), loss)


@pytest.mark.parametrize("make", [LinearClassifier, CosineClassifier])
def test_the_classifier_must_have_the_columns_of_the_loss(make):
    with pytest.raises(ConfigError, match=r"reads 5 logits for 3 classes, the classifier gives 4.*extra_logits=1"):
        posthoc.check_combination(make(4, 3), SeesawLoss(3))
    with pytest.raises(ConfigError, match="extra_logits=0"):
        posthoc.check_combination(DisAlign(make(4, 3, extra_logits=1)), SoftmaxCrossEntropy())
    posthoc.check_combination(DisAlign(make(4, 3, extra_logits=1)), SeesawLoss(3))
    posthoc.check_combination(posthoc.LogitShift(make(4, 3), torch.zeros(3)), SoftmaxCrossEntropy())


def test_shifts_of_lvis_are_finite_and_lift_rare_classes():
    counts = torch.tensor([float(category.image_count) for category in category_tables.load("lvis_v1_train")])
    for shift in (
        posthoc.norcal(counts),
        posthoc.norcal_effective_number(counts),
        posthoc.fracal(counts, 100_170, torch.ones(1203)),
    ):
        assert shift.isfinite().all()
        assert shift[counts.argmin()] > shift[counts.argmax()]
