"""Every recorded tensor of EVA-02's reference detector is met; benchmarks/eva02_parity.py writes the comparison."""

import sys
from pathlib import Path

import pytest
from shared import shared

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import eva02_parity
import parity


@pytest.fixture(scope="module")
def golden():
    return eva02_parity.EvaGolden(shared("golden/eva_tiny"))


def assert_met(rows):
    assert rows
    assert [row for row in rows if not row.met] == []


@pytest.mark.parametrize("part", ["rpn_rows", "stage_rows"])
def test_proposals_and_cascade_stages_equal_the_record(golden, part):
    assert_met(list(getattr(eva02_parity, part)(golden)))


@pytest.mark.parametrize("setting", eva02_parity.INFERENCE)
def test_instances_of_every_inference_setting_equal_the_record(golden, setting):
    assert_met(list(eva02_parity.detection_rows(golden, setting)))


QUICK = ("all/sigmoid_ce/polygon", "firstk/sigmoid_fed12/polygon", "firstk/softmax_ce/polygon")


def check_losses(golden, keys):
    rows = list(parity.loss_rows(golden, keys, eva02_parity.GRADIENTS))
    assert sum(": loss_" in row.name for row in rows) == 9 * len(keys)
    assert_met(rows)


@pytest.mark.parametrize("key", QUICK)
def test_losses_and_gradients_equal_the_record(golden, key):
    check_losses(golden, [key])


@pytest.mark.slow
def test_losses_and_gradients_of_all_settings_equal_the_record(golden):
    check_losses(golden, list(golden.meta["train_losses"]))
