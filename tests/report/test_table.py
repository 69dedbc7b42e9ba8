"""One table in four renderings."""

import csv
import io

import pytest
from rich.console import Console

from cvpods_ext.evaluation.metric_table import Metric
from cvpods_ext.report.table import (
    Cell,
    Table,
    fitted,
    mark_best,
    measured_only,
    to_csv,
    to_latex,
    to_markdown,
    to_terminal,
)

AP = Metric(name="AP", description="average precision")


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
    out.print(to_terminal(table, 100))
    shown = out.export_text()
    assert "a_b|c [x]" in shown
    assert "n/a" in shown
    assert "from <somewhere>" in shown


def ranged(value, low, high):
    return Cell(f"{value}", value, low=low, high=high)


def test_the_best_is_marked_where_its_range_lies_beyond_all_others_and_never_alone():
    rows = [
        (Cell("x"), ranged(3.0, 2.5, 3.5), ranged(3.0, 2.5, 3.5), ranged(3.0, 2.9, 3.1)),
        (Cell("y"), ranged(2.0, 1.5, 2.4), ranged(2.0, 1.0, 2.5), Cell("-")),
        (Cell("z"), Cell("2.4", 2.4), Cell("n/a"), Cell("n/a")),
    ]
    marked = mark_best(rows, {1: AP, 2: AP, 3: AP})
    assert [row[1].best for row in marked] == [True, False, False]
    assert not any(row[2].best for row in marked), "the ranges touch"
    assert not any(row[3].best for row in marked), "a column of one number"


def test_a_number_without_a_range_is_never_the_best_but_keeps_others_from_it():
    assert not any(row[0].best for row in mark_best([(Cell("2.0", 2.0),), (Cell("1.0", 1.0),)], {0: AP}))
    (one, other) = mark_best([(Cell("2.7", 2.7),), (ranged(3.0, 2.5, 3.5),)], {0: AP})
    assert not one[0].best
    assert not other[0].best


def test_negative_numbers_can_be_the_best():
    marked = mark_best([(ranged(-2.0, -2.1, -1.9),), (ranged(-1.0, -1.1, -0.9),)], {0: AP})
    assert [row[0].best for row in marked] == [False, True]


def test_the_smallest_error_is_the_best_and_an_unknown_metric_has_none():
    rows = [(ranged(2.0, 1.9, 2.1), ranged(2.0, 1.9, 2.1)), (ranged(1.0, 0.9, 1.1), ranged(1.0, 0.9, 1.1))]
    error = Metric(name="ECE", description="an error", higher_is_better=False)
    strange = Metric(name="new", description="of another version", higher_is_better=None)
    marked = mark_best(rows, {0: error, 1: strange})
    assert [row[0].best for row in marked] == [False, True]
    assert not any(row[1].best for row in marked)


def test_several_tables_are_one_csv_with_the_ends_of_ranges():
    first = Table("segm", ("experiment", "AP"), ((Cell("a"), ranged(3.0, 2.5, 3.5)), (Cell("b"), Cell("2.0", 2.0))))
    second = Table("bbox", ("experiment", "APr"), ((Cell("a"), Cell("-")),))
    assert list(csv.reader(io.StringIO(to_csv(first, second)))) == [
        ["table", "experiment", "AP", "AP low", "AP high", "APr"],
        ["segm", "a", "3.0", "2.5", "3.5", ""],
        ["segm", "b", "2.0", "", "", ""],
        ["bbox", "a", "", "", "", "-"],
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_that_a_spreadsheet_would_run_is_escaped_in_csv(start):
    cells = (Cell(f"{start}cmd()"), Cell("-1.0", -1.0)), (Cell("-"), Cell("-"))
    table = Table(f"{start}title", ("name", "AP"), cells)
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    kept = start.replace("\r", " ")
    assert rows[1] == [f"'{kept}title", f"'{kept}cmd()", "-1.0"], "a number stays a number"
    assert rows[2][1:] == ["-", "-"], "what was not measured stays readable"


def test_what_all_names_begin_with_is_said_once_where_the_screen_is_narrow():
    names = ("mask.res50.a", "mask.res50.b.c")
    table = Table("t", ("experiment", "published AP"), tuple((Cell(name), Cell("1.0", 1.0)) for name in names))
    short = fitted(table, width=20)
    assert [row[0].text for row in short.rows] == ["…a", "…b.c"]
    assert short.header == ("experiment", "publ. AP")
    assert short.notes == ("names begin with mask.res50.",)
    assert fitted(table, width=40) == table
    for untouched in (("one.two",), ("alpha", "beta"), ("a.b", "a")):
        table = Table("t", ("experiment",), tuple((Cell(name),) for name in untouched))
        assert fitted(table, width=1) == table


@pytest.mark.parametrize("width", [80, 100])
def test_no_number_is_cut_on_a_narrow_screen(width):
    cell = Cell("25.8 [25.6, 26.1]", 25.8)
    rows = tuple((Cell(f"mask_rcnn.narrow.fpn64.box.96.rfs.{name}"), Cell("3 (0-2)"), *[cell] * 4) for name in "ab")
    out = Console(width=width, file=io.StringIO())
    table = Table("t", ("experiment", "runs (seeds)", *"ABCD"), rows)
    out.print(to_terminal(fitted(table, width), width))
    lines = out.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.count("25.8") for line in lines) == sum(line.count("[25.6, 26.1]") for line in lines) == 8


def test_names_are_folded_behind_dots():
    rows = tuple((Cell(name), Cell("-")) for name in ("mask_rcnn.res50.fpn.lvisv1.multiscale.rfs.1x", "other"))
    out = Console(width=30, file=io.StringIO())
    out.print(to_terminal(Table("t", ("experiment", "AP"), rows), 30))
    lines = [line.strip(" -") for line in out.file.getvalue().splitlines()]
    assert lines[3:6] == ["mask_rcnn.res50.fpn.", "lvisv1.multiscale.rfs.1x", "other"]


def test_what_all_names_end_in_is_left_out_as_well_but_never_a_whole_name():
    def short(*names):
        rows = tuple((Cell(name), Cell("1.0", 1.0)) for name in names)
        return fitted(Table("t", ("experiment", "AP"), rows), 10)

    narrow = short("mask.res50.rfs.1x", "mask.res101.1x", "mask.res50.cos.rfs.1x")
    assert [row[0].text for row in narrow.rows] == ["…res50.rfs…", "…res101…", "…res50.cos.rfs…"]
    assert narrow.notes == ("names begin with mask. and end in .1x",)
    narrow = short("mask.res50.rfs.1x", "mask.res50.1x")
    assert [row[0].text for row in narrow.rows] == ["…rfs.1x", "…1x"]
    assert [row[0].text for row in short("a.b.1x", "a.b.1x").rows] == ["…1x", "…1x"]


def test_rows_and_columns_without_numbers_are_left_out_and_counted():
    table = Table(
        "t",
        ("experiment", "AP", "APr", "published AP"),
        (
            (Cell("a"), Cell("-"), Cell("-"), Cell("2.0", 2.0)),
            (Cell("b"), Cell("-"), Cell("-"), Cell("-")),
            (Cell("c"), Cell("-"), Cell("n/a"), Cell("-")),
        ),
    )
    short = measured_only(table)
    assert short.header == ("experiment", "APr", "published AP")
    assert [row[0].text for row in short.rows] == ["a", "c"]
    assert short.notes == ("not shown: 1 experiment without numbers; --wide shows all",)
    empty = Table("t", ("experiment", "AP"), ((Cell("b"), Cell("-")),))
    assert measured_only(empty) is empty
