"""Every recorded tensor of the reference DINO is met; benchmarks/dino_parity.py writes the comparison."""

import dino_parity
import dino_parity_parts
import numpy as np
import pytest
import torch
from shared import shared


@pytest.fixture(scope="module", params=["", "resnet"])
def golden(request):
    return dino_parity.DinoGolden(shared("golden/dino_tiny") / request.param)


@pytest.fixture(autouse=True)
def _plain_convolutions(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def assert_met(rows, count):
    rows = list(rows)
    assert [row for row in rows if not row.met] == []
    assert len(rows) == count


def test_maps_tokens_queries_and_detections_equal_the_record(golden):
    assert_met(dino_parity.forward_rows(golden), {"dino_tiny": 64, "resnet": 44}[golden.folder.name])


@pytest.mark.parametrize("case", dino_parity.CASES)
def test_a_training_step_equals_the_record(golden, case):
    rows = list(dino_parity.train_rows(golden, case))
    assert sum(": loss_" in row.name for row in rows) == 15
    assert_met(rows, len(rows))


def test_operators_equal_the_record():
    assert_met(dino_parity_parts.operator_rows(np.load(shared("golden/dino_tiny/ops.npz"))), 38)


def test_eva01_equals_the_record():
    assert_met(dino_parity_parts.eva01_rows(np.load(shared("golden/dino_tiny/eva01_backbone.npz"))), 18)
