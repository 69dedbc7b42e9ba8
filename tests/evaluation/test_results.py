import json
import math
import subprocess
import sys

import pytest

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.results import Results


@pytest.fixture
def results():
    return Results(
        experiment="mask_rcnn.x",
        dataset="lvis_v1_val",
        metrics={"bbox": {"AP": 20.3, "APr": None}, "segm": {}},
        settings={"max_detections": 300},
        changes={"data.sampler": ["uniform", "repeat_factor"]},
        provenance={"seed": 0},
    )


def test_a_round_trip_keeps_everything(results, tmp_path):
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results
    assert json.loads((tmp_path / "results.json").read_text())["metrics"]["bbox"]["APr"] is None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("metrics"), r"missing keys \['metrics'\]"),
        (lambda c: c.update(metric={}), r"unknown keys \['metric'\]"),
        (lambda c: c.update(experiment=3), "experiment must be text, got 3"),
        (lambda c: c.update(settings=[]), "settings must be an object"),
        (lambda c: c["metrics"].update(bbox=20.3), r"metrics\.bbox must be an object"),
        (
            lambda c: c["metrics"]["bbox"].update(AP="20.3"),
            r"metrics\.bbox\.AP must be a number or null, got '20\.3'",
        ),
        (lambda c: c["metrics"]["bbox"].update(AP=True), r"metrics\.bbox\.AP must be"),
    ],
)
def test_broken_files_are_named(damage, message, results, tmp_path):
    path = tmp_path / "results.json"
    results.write(path)
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as raised:
        Results.read(path)
    assert str(path) in str(raised.value)


def test_missing_truncated_and_foreign_files_are_named(results, tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(DataError, match=r"is missing\. Run pods_test"):
        Results.read(path)
    results.write(path)
    path.write_text(path.read_text()[:40])
    with pytest.raises(DataError, match="not valid JSON"):
        Results.read(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="holds a list"):
        Results.read(path)


def test_a_metric_that_is_not_a_number_is_never_written(results, tmp_path):
    with pytest.raises(DataError, match=r"metrics\.bbox\.AP"):
        Results(experiment="x", dataset="y", metrics={"bbox": {"AP": math.nan}}).write(tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []


def test_reading_results_does_not_import_torch():
    code = "import sys, cvpods_ext.evaluation.results; assert not {'torch', 'numpy', 'pyarrow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "content",
    ["[" * 200_000, '{"experiment": "x", "dataset": "y", "metrics": {"a": {"AP": 1' + "0" * 400 + "}}}",
     '{"experiment": "x", "dataset": "y", "metrics": {"a": {"AP": ' + "9" * 5000 + "}}}", "\x00" * 20],
    ids=["nested", "400 digits", "5,000 digits", "zero bytes"],
)  # fmt: skip
def test_a_hostile_file_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"results\.json.*Run pods_test again") as raised:
        Results.read(path)
    assert len(str(raised.value)) < 600
