"""Every recorded tensor of the reference segmentor is met; benchmarks/upernet_parity.py writes the comparison."""

import numpy as np
import pytest
import upernet_parity
import upernet_parity_data
import upernet_parity_optim
from shared import shared


@pytest.fixture(scope="module")
def golden():
    return upernet_parity.UperGolden(shared("golden/upernet_tiny"))


def assert_met(rows, at_least):
    rows = list(rows)
    assert len(rows) >= at_least
    assert [row for row in rows if not row.met] == []


def test_every_intermediate_result_equals_the_record(golden):
    rows = [*upernet_parity.rotary_rows(golden), *upernet_parity.forward_rows(golden)]
    assert_met(rows, 40)


@pytest.mark.parametrize(
    ("case", "rows"), [("train_nodrop", 50), ("train_dropout", 9), ("train_droppath", 9)], ids=lambda x: str(x)
)
def test_losses_and_gradients_equal_the_record(golden, case, rows):
    assert_met(upernet_parity.training_rows(golden, case), rows)


def test_rates_losses_and_weights_of_eight_steps_equal_the_record(golden):
    assert_met(upernet_parity_optim.optimizer_rows(golden), 30)


def test_label_maps_and_probabilities_of_every_way_to_test_equal_the_record(golden):
    assert_met(upernet_parity.inference_rows(golden), 20)


def test_areas_and_metrics_equal_the_record():
    assert_met(upernet_parity_data.metric_rows(shared("golden/upernet_tiny")), 16)


def test_every_pixel_of_the_pipeline_equals_the_record():
    assert_met(upernet_parity_data.pipeline_rows(shared("golden/upernet_tiny")), 40)


def test_a_wrong_draw_is_noticed():
    """The replay checks the bounds of every draw, or the order of draws would not be tested."""
    replay = upernet_parity_data.Replay([["uniform", [0.5, 1.5], 1.0]])
    with pytest.raises(AssertionError, match="recorded"):
        replay.uniform(0.5, 2.0)
    with pytest.raises(AssertionError, match="drawn"):
        upernet_parity_data.Replay([["uniform", [0.5, 1.5], 1.0]]).integers(2)


def test_predictions_are_rebuilt_with_the_recorded_areas():
    truth = np.array([[0, 0, 1], [1, 2, 255]], dtype=np.uint8)
    labels = upernet_parity_data.prediction_with(truth, np.array([1, 1, 0]), np.array([2, 2, 1]))
    assert labels[1, 2] == 255
    assert np.bincount(labels[truth != 255], minlength=3).tolist() == [2, 2, 1]
    assert (labels == truth)[truth != 255].sum() == 2
