"""Every recorded tensor of the reference detector is met; benchmarks/golden_parity.py writes the same comparison."""

import golden_parity
import parity
import pytest
import torch
from shared import shared


@pytest.fixture(params=golden_parity.FOLDERS)
def golden(request):
    return golden_parity.D2Golden(shared(f"golden/{request.param}"))


def assert_met(rows):
    rows = list(rows)
    assert rows
    assert [row for row in rows if not row.met] == []


def test_the_tolerances_are_those_of_the_record():
    assert (parity.FLOATS, parity.LOSSES, parity.GRADIENTS, parity.EQUAL) == (5e-6, 1e-5, 1e-3, 0)


@pytest.mark.parametrize("part", ["feature_rows", "head_rows", "sampling_rows", "loss_rows"])
def test_every_part_equals_the_record(golden, part):
    assert_met(getattr(golden_parity, part)(golden))


@pytest.mark.parametrize("setting", ["softmax", "sigmoid"])
def test_instances_and_pasted_masks_equal_the_record(golden, setting):
    assert_met(golden_parity.detection_rows(golden, setting))


def test_a_wrong_stride_would_be_noticed():
    golden = golden_parity.D2Golden(shared("golden/d2_tiny_mask_rcnn"))
    images, _ = golden.model().preprocess(golden.batch().images)
    wrong = golden.model(stride_in_1x1=False).backbone(images)[0]
    assert parity.compare("p2", wrong, golden.inference["p2"]).relative > 0.01


def test_whole_numbers_must_be_equal_and_floats_nearly():
    labels, floats = torch.tensor([3, 4]), torch.tensor([1.0, 2.0])
    assert parity.compare("labels", labels, labels.numpy()).met
    assert not parity.compare("labels", labels, (labels + torch.tensor([0, 1])).numpy(), 0.5).met
    assert parity.compare("floats", floats * (1 + 4e-6), floats.numpy()).met
    assert not parity.compare("floats", floats * (1 + 6e-6), floats.numpy()).met
    assert not parity.compare("floats", floats[:1], floats.numpy()).met


def test_a_missed_tolerance_is_marked_in_the_table_and_in_the_exit_status(tmp_path):
    rows = [parity.Row("good", 0.0, 0.0, 0.0), parity.Row("bad", 0.2, 0.1, 0.01)]
    assert parity.write_table(tmp_path / "table.md", "command", {"net": rows}) == 1
    text = (tmp_path / "table.md").read_text()
    assert "2 tensors, 1 within their tolerance." in text
    assert "| bad | 2.0e-01 | 1.0e-01 **missed** | 1e-02 |" in text
    assert parity.write_table(tmp_path / "table.md", "command", {"net": rows[:1]}) == 0
