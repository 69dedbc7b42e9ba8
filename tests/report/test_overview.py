import re

import pytest

from cvpods_ext.report.overview import axis_ticks, overview
from cvpods_ext.report.table import Cell, Table


def ranged(text, value, low, high):
    return Cell(text, value, low=low, high=high)


VALUES = Table(
    "t, intervals",
    ("experiment", "AP", "APr"),
    (
        (Cell("net.plain"), ranged("10.0 [9.0, 11.0]", 10.0, 9.0, 11.0), Cell("n/a")),
        (Cell("net.<rfs>"), ranged("14.0 [13.0, 15.0]", 14.0, 13.0, 15.0), Cell("n/a")),
    ),
)
DIFFERENCES = Table(
    "t, differences to net.plain",
    ("experiment", "metric", "verdict", "difference", "resolvable"),
    ((Cell("net.<rfs>"), Cell("AP"), Cell("higher"), ranged("+4.0 [+3.0, +5.0]", 4.0, 3.0, 5.0), Cell("1.4", 1.4)),),
    text_columns=3,
)


def test_every_measured_metric_is_a_panel_with_a_dot_for_each_experiment_and_its_interval_to_scale():
    html = overview(VALUES)
    assert html.count("<figure>") == 1, "APr has no number"
    assert html.count('class="dot"') == 2
    ranges = re.findall(r'class="range" style="left:([\d.]+)%;width:([\d.]+)%"', html)
    (left, width), (second, _) = [(float(a), float(b)) for a, b in ranges]
    assert (second - left) / width == pytest.approx(2.0, abs=0.01), "4 points apart, 2 points wide"
    assert "<rfs>" not in html
    assert "…&lt;rfs&gt;" in html


def test_differences_stand_beside_with_zero_and_the_colour_of_their_verdict():
    html = overview(VALUES, DIFFERENCES)
    assert "AP: difference to net.plain" in html
    assert 'dots-row higher"' in html
    assert 'class="zero" style="left:0.00%"' in html


def test_tables_without_numbers_have_no_picture():
    assert overview(Table("t", ("experiment", "AP"), ((Cell("a"), Cell("-")),))) == ""


@pytest.mark.parametrize(("low", "high"), [(0, 0), (-3.2, 4.1), (9.9, 10.1), (0, 100), (0.0, 1e-4)])
def test_ticks_are_few_and_hold_all_values(low, high):
    ticks = axis_ticks(low, high)
    assert ticks[0] <= low + 1e-6
    assert ticks[-1] >= high - 1e-6
    assert 2 <= len(ticks) <= 6
