"""Intervals and verdicts: the measured values, the clear difference found, the absent one not claimed."""

import re
import shutil
import subprocess
import sys

import pytest

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.detection import ground_truth
from cvpods_ext.evaluation.detection.shards import DETECTIONS
from cvpods_ext.evaluation.results import Results
from cvpods_ext.report.detection.intervals import Compared, interval_tables
from cvpods_ext.report.detection.sources import runs_to_compare
from cvpods_ext.report.interval_tables import reference_position
from cvpods_ext.report.predictions_on_disk import shards_of
from cvpods_ext.report.runs import collect


@pytest.fixture(scope="module")
def gt(playground):
    return ground_truth.load(playground / "datasets" / "lvis" / "lvis_box_val.json", masks=True)


@pytest.fixture(scope="module")
def found(playground, gt):
    return runs_to_compare(collect([playground]).entries, gt, "segm")


def numbers(text):
    return [float(part) for part in re.findall(r"[-+]?\d+\.\d+", text)]


def test_intervals_surround_the_measured_values(found, playground):
    table = interval_tables("t", found, resamples=100)[0]
    assert table.header == ("experiment", "AP", "APr", "APc", "APf")
    for row in table.rows:
        measured = Results.read(playground / row[0].text / "results.json").metrics["segm"]
        for name, cell in zip(table.header[1:], row[1:], strict=True):
            assert cell.value == pytest.approx(measured[name], abs=1e-9)
            value, low, high = numbers(cell.text)
            assert 0 <= low <= value <= high <= 100
            assert low < high
    assert not any(cell.best for row in table.rows for cell in row)


def test_a_clear_difference_is_called_one_in_the_right_direction(found):
    differences = interval_tables("t", found, resamples=100)[1]
    by_metric = {row[1].text: row for row in differences.rows}
    assert [row[0].text for row in differences.rows] == ["poor"] * 4
    assert by_metric["AP"][2].text == by_metric["APr"][2].text == "lower"
    assert by_metric["APr"][3].value < -10
    other_way = interval_tables("t", found, reference="poor", resamples=100)[1]
    assert other_way.rows[0][2].text == "higher"
    assert other_way.rows[0][3].value == pytest.approx(-by_metric["AP"][3].value)


def test_no_difference_is_not_called_one(found):
    twin = [Compared("a", found[0].runs), Compared("b", found[0].runs)]
    differences = interval_tables("t", twin, resamples=50)[1]
    assert {row[2].text for row in differences.rows} == {"not distinguishable at this size"}
    assert {row[3].value for row in differences.rows} == {0.0}


def test_category_effects_add_up_to_the_difference(found):
    tables = interval_tables("t", found, resamples=50)
    effects = [row[4].value for row in tables[2].rows]
    assert effects == sorted(effects, key=abs, reverse=True)
    assert len(effects) == 10
    gains, losses = map(int, re.findall(r"\d+", tables[2].notes[0])[:2])
    assert gains + losses <= 12
    assert losses > gains


def test_without_frequency_groups_only_the_mean_is_shown(found):
    tables = interval_tables("t", found, resamples=50, federated=False)
    assert tables[0].header == ("experiment", "AP")
    assert [row[1].text for row in tables[1].rows] == ["AP"]


def test_an_unknown_reference_is_refused(found):
    with pytest.raises(ConfigError, match="--reference x is none of the compared experiments: good, poor"):
        interval_tables("t", found, reference="x")


def test_detections_are_found_beside_the_results_or_in_outputs(playground, tmp_path):
    good = collect([playground / "good"]).entries[0]
    assert shards_of(good, DETECTIONS) == [playground / "good" / "outputs" / "inference" / "lvis_box_val"]
    shutil.copytree(playground / "good" / "outputs", tmp_path / "seed0")
    shutil.copy(playground / "good" / "results.json", tmp_path / "seed0")
    assert shards_of(collect([tmp_path]).entries[0], DETECTIONS) == [tmp_path / "seed0" / "inference" / "lvis_box_val"]


def test_what_was_measured_on_other_annotations_is_left_out_with_a_warning(playground, gt, tmp_path, caplog):
    shutil.copytree(playground / "good", tmp_path / "good")
    path = tmp_path / "good" / "results.json"
    path.write_text(path.read_text().replace(gt.sha256, "0" * 64))
    assert runs_to_compare(collect([tmp_path]).entries, gt, "segm") == []
    assert "measured on other annotations" in caplog.text
    shutil.rmtree(tmp_path / "good" / "outputs")
    assert runs_to_compare(collect([tmp_path]).entries, gt, "segm") == []
    assert "no detections on disk" in caplog.text


def test_the_command_shows_verdicts_without_torch(playground, tmp_path):
    code = "import sys; from cvpods_ext.cli.compare import main; main(); assert 'torch' not in sys.modules"
    out = tmp_path / "t.tex"
    arguments = ["--task", "segm", "--intervals", "--resamples", "50", "--out", str(out)]
    command = [sys.executable, "-c", code, str(playground), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    text = out.read_text()
    assert r"poor & APr & lower & -" in text
    assert text.count(r"\begin{tabular}") == 4


def test_the_plain_model_is_compared_with_if_nobody_chooses_another():
    assert reference_position(["net.rfs", "net.plain", "net.cos"], "") == 1
    assert reference_position(["net.rfs.cos.1x", "net.1x", "net.rfs.1x"], "") == 1, "its words are in all others"
    assert reference_position(["net.rfs", "net.cos"], "") == 0
    assert reference_position(["a.plain", "b.plain"], "") == 0, "two plain ones"
    assert reference_position(["net.plain", "net.rfs"], "net.rfs") == 1
