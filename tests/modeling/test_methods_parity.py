"""The table of methods against their originals: every row within its tolerance, and every method in it."""

from dataclasses import replace

import methods_parity
import pytest
from shared import shared


@pytest.fixture(scope="module")
def rows():
    shared("golden/methods/methods.npz")
    return methods_parity.rows(shared("golden"))


def test_every_method_is_within_its_tolerances(rows):
    assert [row for row in rows if not row.met] == []


def test_the_table_holds_every_loss_and_calibration_with_a_published_formula(rows):
    methods = {row.method.split(",")[0] for row in rows}
    losses = {
        "GRW",
        "balanced softmax",
        "balanced sigmoid",
        "EQL",
        "EQLv2",
        "federated",
        "ECM",
        "GOL",
        "Seesaw",
        "BAGS",
    }
    assert methods >= losses | {"GOL with DropLoss", "NorCal", "FRACAL", "DisAlign", "LogN"}


def test_a_difference_beyond_the_tolerance_shows(rows):
    wrong = replace(rows[0], gradient=1e-3)
    assert not wrong.met
    assert "| **no** |" in methods_parity.page([wrong])
