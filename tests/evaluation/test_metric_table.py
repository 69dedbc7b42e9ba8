"""The metric table: wrong names get the nearest one, what another version wrote is kept, errors are better when low."""

import subprocess
import sys

import pytest

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.detection.metrics import METRICS
from cvpods_ext.evaluation.metric_table import Family, Metric, MetricTable

TABLE = MetricTable(
    families=(
        Family(
            name="top",
            title="accuracy",
            metrics=(
                Metric(name="top1", description="share of images whose best class is right"),
                Metric(name="top5", description="share of images whose class is among the best five"),
                Metric(name="speed", description="images a second", unit="images/s", digits=0),
            ),
            headline="top1",
            columns=(("top1", "top5"), ("top1", "speed")),
        ),
    )
)


def test_a_wrong_key_is_answered_with_the_nearest_one():
    with pytest.raises(ConfigError, match="did you mean 'top/top5'"):
        TABLE.find("top/top6")
    with pytest.raises(ConfigError, match=r"unknown metric family 'tap': did you mean 'top'"):
        TABLE.family("tap")
    assert TABLE.find("top/top5")[1].description.startswith("share")


def test_columns_are_those_of_which_something_is_known_beside_the_headline():
    family = TABLE.family("top")
    assert family.default_columns({"top1", "speed"}) == ("top1", "speed")
    assert family.default_columns({"top1"}) == ("top1", "top5")


def test_what_another_version_measured_is_appended_and_no_direction_is_guessed():
    table = TABLE.extended([{"top": {"top1": 1.0, "top9": 2.0}}, {"area": {"iou": 3.0}, "nothing": {}}])
    assert table.family("top").names == ("top1", "top5", "speed", "top9")
    assert table.names == ("top", "area")
    assert table.family("area").headline == "iou"
    assert table.find("top/top9")[1].higher_is_better is None
    assert "unknown to this version" in table.family("area").note
    assert TABLE.names == ("top",)


def test_units_and_digits_are_those_of_the_table():
    speed = TABLE.find("top/speed")[1]
    assert (speed.heading, speed.format(12.34)) == ("speed (images/s)", "12")
    assert TABLE.find("top/top1")[1].format(1.25, sign="+") == "+1.2"


def test_errors_are_better_when_lower_and_extensions_say_that_they_are_none_of_the_protocol():
    for family in METRICS.families:
        lower = family.name.endswith(("_errors", "_calibration"))
        assert {metric.higher_is_better for metric in family.metrics} == {not lower}
        assert family.official == (family.name in ("bbox", "segm"))
        assert bool(family.note) != family.official


def test_the_tables_import_neither_torch_nor_numpy():
    code = "import sys, cvpods_ext.evaluation.detection.metrics; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
