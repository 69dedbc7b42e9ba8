"""Every category in a CSV: values of the official evaluation, losses first, intervals around them."""

import csv
import io
import subprocess
import sys

import numpy as np
import pytest

from cvpods_ext.evaluation.detection import ground_truth
from cvpods_ext.evaluation.detection.per_category import category_aps
from cvpods_ext.evaluation.detection.precision_recall import curves
from cvpods_ext.report.detection.category_table import category_table, object_counts
from cvpods_ext.report.detection.intervals import Drawn
from cvpods_ext.report.detection.sources import runs_to_compare
from cvpods_ext.report.runs import collect
from cvpods_ext.report.table import to_csv


@pytest.fixture(scope="module")
def gt(playground):
    return ground_truth.load(playground / "datasets" / "lvis" / "lvis_box_val.json", masks=True)


@pytest.fixture(scope="module")
def found(playground, gt):
    return runs_to_compare(collect([playground]).entries, gt, "segm")


def made(found, reference=""):
    drawn = Drawn.of(found, reference, 100)
    return category_table("t", drawn.labels, drawn.resampled, drawn.base, drawn.matches, None, True)


def test_every_category_has_its_ap_and_its_objects(found, gt):
    table = made(found)
    run = found[0].runs[0]
    aps = category_aps(curves(run.evaluated, run.objects, run.num_categories).precision)
    column = table.header.index(f"AP {found[0].label}")
    values = {row[0].text: row[column].value for row in table.rows}
    assert len(values) == gt.num_categories
    for name, ap in zip(gt.category_names, aps, strict=True):
        assert values[name] == (None if np.isnan(ap) else pytest.approx(100 * ap if aps.max() <= 1 else ap))
    assert sum(row[3].value for row in table.rows) == object_counts(run).sum() > 0


def test_categories_that_lose_most_stand_first_with_a_verdict(found):
    table = made(found, "good")
    at = table.header.index("difference poor")
    changes = [row[at].value for row in table.rows if row[at].value is not None]
    assert changes == sorted(changes)
    assert changes[0] < 0
    for row in table.rows:
        if row[at].value is not None:
            low, high = row[at].low, row[at].high
            assert low <= row[at].value <= high
            expected = "higher" if low > 0 else "lower" if high < 0 else "not distinguishable at this size"
            assert row[at + 1].text == expected


def test_the_csv_has_columns_for_the_ends_of_intervals(found):
    header, *rows = csv.reader(io.StringIO(to_csv(made(found, "good"))))
    at = header.index("difference poor")
    assert header[at + 1 : at + 3] == ["difference poor low", "difference poor high"]
    assert all(len(row) == len(header) for row in rows)


def run(*flags):
    code = "import sys; from cvpods_ext.cli.compare import main; main(); assert 'torch' not in sys.modules"
    return subprocess.run([sys.executable, "-c", code, *map(str, flags)], capture_output=True, text=True)


def test_the_command_writes_the_file_without_torch(playground, gt, tmp_path):
    done = run(playground, "--categories", tmp_path / "all.csv", "--html", tmp_path / "page.html", "--resamples", 50)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text(encoding="utf-8"))))
    assert {row["category"] for row in rows} == set(gt.category_names)
    assert float(rows[0]["difference poor"]) < 0
    assert 'class="dots-grid"' in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_file_that_cannot_be_written_is_refused_first(playground, tmp_path):
    done = run(playground, "--categories", tmp_path / "all.xlsx")
    assert done.returncode == 2
    assert ".csv" in done.stderr
