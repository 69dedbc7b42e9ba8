"""Every recorded tensor of EVA-02's reference detector is met; benchmarks/eva02_parity.py writes the comparison."""

import eva02_parity
import eva02_parity_parts
import numpy as np
import parity
import pytest
from shared import shared

from cvpods_ext.config.detection import DetectionData
from cvpods_ext.data.num_shots import image_counts


@pytest.fixture(scope="module")
def golden():
    return eva02_parity.EvaGolden(shared("golden/eva_tiny"))


def assert_met(rows):
    assert rows
    assert [row for row in rows if not row.met] == []


def test_the_backbone_equals_the_record(golden):
    rows = list(
        eva02_parity_parts.backbone_rows(golden.model().eval().backbone, np.load(golden.folder / "backbone.npz"))
    )
    assert len(rows) == 22
    assert_met(rows)


def test_operators_equal_the_record():
    counts = image_counts(DetectionData(train="lvis_v1_train"), ".")
    rows = list(eva02_parity_parts.operator_rows(np.load(shared("golden/ops/eva_ops.npz")), counts))
    assert len(rows) == 37
    assert_met(rows)


def test_every_parameter_of_a_folder_learns_at_the_recorded_rate():
    assert_met(list(eva02_parity_parts.rate_rows(shared("golden"))))


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
