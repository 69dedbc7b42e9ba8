"""Every recorded tensor of the reference classifiers is met; benchmarks/classification_parity.py writes the page."""

import classification_parity
import pytest
from shared import shared


@pytest.fixture(scope="module")
def golden():
    return classification_parity.ClassificationGolden(shared("golden/eva02_cls"))


def assert_met(rows, at_least):
    rows = list(rows)
    assert len(rows) >= at_least
    assert [row for row in rows if not row.met] == []


def test_tables_of_any_grid_equal_the_record(golden):
    assert_met(classification_parity.table_rows(golden), 6)


def test_the_real_tiny_network_gives_the_logits_of_authors_timm_and_mmpretrain(golden):
    assert_met(classification_parity.tiny_rows(golden), 11)


@pytest.mark.parametrize("kind", ["subln", "nosubln"])
def test_intermediate_results_losses_and_gradients_equal_the_record(golden, kind):
    assert_met(classification_parity.small_rows(golden, kind), 16)
    assert_met(classification_parity.training_rows(golden, kind), 3)
