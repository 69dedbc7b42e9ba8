"""The fault suite. `make faults` also runs the long form, with random kills."""

import signal

import pytest
import scenarios
import scenarios_one_folder as one_folder
from workshop import Workshop


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("faults"))


def assert_nothing_lost(outcome):
    assert outcome.differs == [], f"{outcome.fault}: {outcome.differs} differ from the undisturbed run"


@pytest.mark.parametrize("iteration", [2, 7])
def test_a_killed_run_continues_bit_for_bit(shop, iteration):
    """Step 2 is before the first checkpoint."""
    assert_nothing_lost(scenarios.killed_at_a_step(shop, iteration))


@pytest.mark.parametrize("moment", ["in the file", "before the index", "before the end"])
def test_a_run_killed_while_writing_a_checkpoint_continues_bit_for_bit(shop, moment):
    assert_nothing_lost(scenarios.killed_in_a_write(shop, moment))


def test_when_one_rank_dies_the_others_end_and_nothing_is_lost(shop):
    assert_nothing_lost(scenarios.one_rank_killed(shop))


def test_preemption_of_one_rank_stops_all_with_a_checkpoint(shop):
    assert_nothing_lost(scenarios.terminated(shop, ranks=2))


def test_a_full_disk_loses_nothing(shop):
    assert_nothing_lost(scenarios.full_disk(shop))


def test_a_truncated_checkpoint_is_passed_over(shop):
    assert_nothing_lost(scenarios.truncated_checkpoint(shop))


def test_a_corrupt_image_is_skipped_and_listed(shop):
    assert_nothing_lost(scenarios.corrupt_image(shop))


def test_corrupt_annotations_are_dropped(shop):
    assert_nothing_lost(scenarios.corrupt_annotation(shop))


def test_a_killed_reader_is_replaced(shop):
    assert_nothing_lost(scenarios.reader_killed(shop))


def test_nan_stops_the_run_before_the_weights_are_touched(shop):
    assert_nothing_lost(scenarios.nan_injected(shop))


def test_two_runs_cannot_share_a_folder(shop):
    assert_nothing_lost(one_folder.two_at_once(shop))


def test_a_finished_run_outlives_a_new_one_that_is_killed_early(shop):
    assert_nothing_lost(one_folder.killed_over_a_finished_run(shop))


@pytest.mark.parametrize("moment", ["in the file", "before the index"])
def test_a_finished_run_outlives_a_new_one_that_is_killed_in_its_first_checkpoint(shop, moment):
    assert_nothing_lost(one_folder.killed_while_it_replaces(shop, moment))


def test_a_finished_run_outlives_a_new_one_that_fails(shop):
    assert_nothing_lost(one_folder.failed_over_a_finished_run(shop))


@pytest.mark.slow
def test_restarts_continue_the_new_run_not_the_finished_one(shop):
    assert_nothing_lost(one_folder.restarted_over_a_finished_run(shop))


@pytest.mark.slow
def test_nan_on_one_rank_stops_all(shop):
    assert_nothing_lost(scenarios.nan_injected(shop, ranks=2))


@pytest.mark.slow
def test_four_killed_ranks_continue_bit_for_bit(shop):
    """With more than two addends the order of a sum shows in the last bit."""
    assert_nothing_lost(scenarios.killed_at_a_step(shop, 6, 4))


@pytest.mark.slow
def test_ctrl_c_in_every_reader_still_ends_with_a_checkpoint(shop):
    assert_nothing_lost(scenarios.terminated(shop, ranks=1, number=signal.SIGINT, workers=2))


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (4, 1)])
def test_another_number_of_ranks_goes_on_with_the_same_images(shop, before, after):
    ours, reference = scenarios.resumed_on_other_ranks(shop, before, after)
    assert len(ours) == len(reference) == 12
    for one, other in zip(ours, reference, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.slow
def test_pods_train_restarts_dead_workers_by_itself(shop):
    assert_nothing_lost(scenarios.restarted_by_itself(shop))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_ending_the_launcher_leaves_a_checkpoint_and_no_process(shop, number):
    assert_nothing_lost(scenarios.launcher_ended(shop, number))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_kills_at_random_times_lose_nothing(shop, ranks):
    outcome = scenarios.random_kills(shop, kills=10, ranks=ranks, seed=ranks)
    assert outcome.kills >= 10
    assert_nothing_lost(outcome)
