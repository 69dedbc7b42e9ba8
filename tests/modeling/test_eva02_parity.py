"""Every recorded tensor of EVA-02's reference detector is met; benchmarks/eva02_parity.py prints the comparison."""

import sys
from pathlib import Path

import pytest
from shared import shared

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import eva02_parity as parity

EXACT = ("_classes", "_unmatched", "anchors_p4", "anchors_p6")


@pytest.fixture(scope="module")
def golden():
    return parity.EvaGolden(shared("golden/eva_tiny"))


def assert_close(rows, relative):
    rows = list(rows)
    assert rows
    for row in rows:
        exact = row.name.endswith(EXACT) or ("_post_" in row.name and row.name.endswith("_masks"))
        assert row.relative <= (0 if exact else relative), row


def test_proposals_equal_the_record(golden):
    assert_close(parity.proposal_rows(golden), 5e-6)


def test_cascade_stages_and_mask_logits_equal_the_record(golden):
    assert_close(parity.stage_rows(golden), 5e-5)


@pytest.mark.parametrize("setting", parity.INFERENCE)
def test_instances_of_every_inference_setting_equal_the_record(golden, setting):
    # one mask pixel that crosses 0.5 moves a score by maskness
    assert_close(parity.detection_rows(golden, setting), 1e-3 if "maskness" in setting else 1e-4)


QUICK = ("all/sigmoid_ce/polygon", "firstk/sigmoid_fed12/polygon", "firstk/softmax_ce/polygon")


def check_losses(golden, keys):
    rows = list(parity.loss_rows(golden, keys))
    losses = [row for row in rows if ": loss_" in row.name]
    assert len(losses) == 9 * len(keys)
    assert_close(losses, 1e-5)
    assert_close([row for row in rows if ": loss_" not in row.name], 5e-3)


@pytest.mark.parametrize("key", QUICK)
def test_losses_and_gradients_equal_the_record(golden, key):
    check_losses(golden, [key])


@pytest.mark.slow
def test_losses_and_gradients_of_all_settings_equal_the_record(golden):
    check_losses(golden, list(golden.meta["train_losses"]))
