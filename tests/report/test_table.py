"""One table in four renderings."""

import csv
import io

import pytest
from rich.console import Console

from cvpods_ext.report.table import Cell, Table, mark_best, to_csv, to_latex, to_markdown, to_terminal


@pytest.fixture
def table():
    rows = (
        (Cell("a_b|c [x]"), Cell("12.3", 12.3456, best=True), Cell("n/a")),
        (Cell("plain 50%"), Cell("1.0 ± 0.2", 1.0), Cell("-")),
    )
    return Table("lvis_v1_val & more", ("experiment", "AP", "APr"), rows, notes=("from <somewhere>",))


def test_markdown_escapes_pipes_and_marks_the_best(table):
    lines = to_markdown(table).splitlines()
    assert lines[2:6] == [
        "| experiment | AP | APr |",
        "|---|---:|---:|",
        r"| a_b\|c [x] | **12.3** | n/a |",
        "| plain 50% | 1.0 ± 0.2 | - |",
    ]
    assert lines[-1] == r"- from \<somewhere\>"


def test_csv_keeps_exact_numbers_and_the_signs_for_absence(table):
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert rows == [
        ["table", "experiment", "AP", "APr"],
        ["lvis_v1_val & more", "a_b|c [x]", "12.3456", "n/a"],
        ["lvis_v1_val & more", "plain 50%", "1.0", "-"],
    ]


def test_latex_escapes_what_latex_would_read(table):
    text = to_latex(table)
    assert r"a\_b|c [x] & \textbf{12.3} & n/a \\" in text
    assert r"plain 50\% & 1.0 $\pm$ 0.2 & - \\" in text
    assert r"\begin{tabular}{lrr}" in text
    assert r"lvis\_v1\_val \& more" in text


def test_the_terminal_shows_brackets_instead_of_reading_them_as_style(table):
    out = Console(width=100, file=io.StringIO(), record=True)
    out.print(to_terminal(table))
    shown = out.export_text()
    assert "a_b|c [x]" in shown
    assert "n/a" in shown
    assert "from <somewhere>" in shown


def test_the_best_is_marked_with_ties_as_shown_and_never_alone():
    rows = [
        (Cell("x"), Cell("1.0", 1.04), Cell("3.0", 3.0)),
        (Cell("y"), Cell("1.0", 1.0), Cell("-")),
        (Cell("z"), Cell("0.9", 0.9), Cell("n/a")),
    ]
    marked = mark_best(rows, [1, 2])
    assert [row[1].best for row in marked] == [True, True, False]
    assert [row[2].best for row in marked] == [False, False, False]


def test_negative_numbers_can_win():
    marked = mark_best([(Cell("-2.0", -2.0),), (Cell("-1.0", -1.0),)], [0])
    assert [row[0].best for row in marked] == [False, True]
