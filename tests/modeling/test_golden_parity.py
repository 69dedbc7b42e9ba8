"""Every recorded tensor of the reference detector is met; benchmarks/golden_parity.py prints the same comparison."""

import sys
from pathlib import Path

import pytest
from shared import shared

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import golden_parity as parity

FOLDERS = ("d2_tiny_mask_rcnn", "d2_tiny_cascade_mask_rcnn")
EXACT = ("labels", "classes", "_masks", "gt_boxes")


@pytest.fixture(params=FOLDERS)
def golden(request):
    return parity.Golden(shared(f"golden/{request.param}"))


def assert_close(rows, relative):
    rows = list(rows)
    assert rows
    for row in rows:
        exact = row.name.endswith(EXACT) or any(f"{word}_img" in row.name for word in EXACT)
        assert row.relative <= (0 if exact else relative), row


def test_features_equal_the_record(golden):
    assert_close(parity.feature_rows(golden), 5e-6)


def test_proposals_logits_and_deltas_equal_the_record(golden):
    assert_close(parity.head_rows(golden), 5e-6)


def test_anchor_labels_and_sampled_rois_equal_the_record(golden):
    assert_close(parity.sampling_rows(golden), 5e-6)


def test_losses_and_gradients_equal_the_record(golden):
    rows = list(parity.loss_rows(golden))
    assert_close([row for row in rows if "gradient" not in row.name], 1e-5)
    assert_close([row for row in rows if "gradient" in row.name], 1e-3)


@pytest.mark.parametrize("setting", ["softmax", "sigmoid"])
def test_instances_and_pasted_masks_equal_the_record(golden, setting):
    assert_close(parity.detection_rows(golden, setting), 1e-5)


def test_a_wrong_stride_would_be_noticed():
    golden = parity.Golden(shared("golden/d2_tiny_mask_rcnn"))
    images, _ = golden.model().preprocess(golden.batch().images)
    wrong = golden.model(stride_in_1x1=False).backbone(images)[0]
    assert parity.compare("p2", wrong, golden.inference["p2"]).relative > 0.01
