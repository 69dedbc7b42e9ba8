"""What each decay leaves of the learning rate, by hand."""

import pytest

from cvpods_ext.config import Cosine, EpochCosine, MultiStep, Polynomial, Steps
from cvpods_ext.errors import ConfigError


def test_milestones_follow_the_number_of_iterations():
    assert MultiStep().milestones(180_000) == (120_000, 160_000)
    assert MultiStep().milestones(90) == (60, 80)


@pytest.mark.parametrize(("iteration", "share"), [(0, 1.0), (59, 1.0), (60, 0.1), (79, 0.1), (80, 0.01), (89, 0.01)])
def test_multi_step_leaves_a_tenth_from_each_milestone_on(iteration, share):
    assert MultiStep().share(iteration, 90) == pytest.approx(share)
    assert MultiStep(drops=()).share(iteration, 90) == 1.0


@pytest.mark.parametrize(("iteration", "share"), [(0, 1.0), (25, 0.853553), (50, 0.5), (75, 0.146447), (100, 0.0)])
def test_a_cosine_falls_slowly_fast_and_slowly_again(iteration, share):
    assert Cosine().share(iteration, 100) == pytest.approx(share, abs=1e-6)
    assert Cosine(end=0.2).share(iteration, 100) == pytest.approx(0.2 + 0.8 * share, abs=1e-6)


def test_a_cosine_of_epochs_stays_within_an_epoch():
    shares = [EpochCosine(epochs=4).share(i, 20) for i in range(20)]
    assert shares == [pytest.approx(Cosine().share(i // 5, 4)) for i in range(20)]
    assert EpochCosine(epochs=20).share(7, 20) == Cosine().share(7, 20)


def test_steps_multiply_by_gamma_at_each_drop():
    assert [Steps(drops=(0.5, 0.75), gamma=0.2).share(i, 8) for i in (3, 4, 5, 6)] == pytest.approx([1, 0.2, 0.2, 0.04])


@pytest.mark.parametrize(("power", "share"), [(1.0, 0.75), (2.0, 0.5625), (0.5, 0.866025)])
def test_a_polynomial_is_a_power_of_what_is_left(power, share):
    assert Polynomial(power=power).share(25, 100) == pytest.approx(share, abs=1e-6)
    assert Polynomial(power=power, end=0.1).share(25, 100) == pytest.approx(0.1 + 0.9 * share, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiStep(drops=(0.9, 0.5)), "ascending fractions"),
        (lambda: MultiStep(drops=(0.0,)), "ascending fractions"),
        (lambda: Cosine(end=-0.1), "end is a share"),
        (lambda: Polynomial(power=0.0), "power must be above 0"),
        (lambda: EpochCosine(epochs=0), "epochs must be at least 1"),
        (lambda: Steps(gamma=0.0), "gamma must lie in"),
    ],
)
def test_impossible_decays_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
