"""The comparison table: measured and published apart, absence shown honestly, seeds pooled."""

import subprocess
import sys
import time

import pytest
from results_files import write_experiment, write_results

from cvpods_ext.errors import ConfigError
from cvpods_ext.report.compare import tables
from cvpods_ext.report.runs import Entry, collect

PUBLISHED = "mask_rcnn.res50.fpn.lvisv1.multiscale.1x"


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_measured_and_published_numbers_stand_in_columns_of_their_own(tmp_path):
    write_results(tmp_path / "1", PUBLISHED, {"AP": 18.04, "APr": 1.5, "APc": 15.0, "APf": 28.0})
    write_results(tmp_path / "2", "mine", {"AP": 17.0, "APr": None, "APc": 15.0, "APf": 29.0})
    (table,) = tables(collect([tmp_path]).entries, ["segm"])
    assert table.header == (
        *("experiment", "AP", "APr", "APc", "APf"),
        *("published AP", "published APr", "published APc", "published APf"),
    )
    assert texts(table) == [
        [PUBLISHED, "18.0", "1.5", "15.0", "28.0", "18.3", "1.0", "15.6", "28.9"],
        ["mine", "17.0", "n/a", "15.0", "29.0", "-", "-", "-", "-"],
    ]
    assert not any(cell.best for row in table.rows for cell in row), "one run says nothing of its certainty"
    assert any("DisAlign" in note and "max detections 300" in note for note in table.notes)


def test_the_best_of_several_seeds_is_marked_where_its_range_lies_beyond_the_others(tmp_path):
    for seed, (good, poor) in enumerate(((12.0, 10.0), (12.5, 11.0), (13.0, 9.0))):
        write_results(tmp_path / f"good{seed}", "good", {"AP": good, "APr": good}, seed=seed)
        write_results(tmp_path / f"poor{seed}", "poor", {"AP": poor, "APr": poor + 2}, seed=seed)
    (table,) = tables(collect([tmp_path]).entries, metrics=["AP", "APr"])
    assert [[cell.best for cell in row[2:]] for row in table.rows] == [[True, False], [False, False]]


def test_several_seeds_show_mean_and_range(tmp_path):
    for seed, value in enumerate((10.0, 12.0, 14.6)):
        write_results(tmp_path / str(seed), "a", {"AP": value, "APr": None}, seed=seed)
    (table,) = tables(collect([tmp_path]).entries, metrics=["AP", "APr", "AR"])
    assert table.header == ("experiment", "runs (seeds)", "AP", "APr", "AR")
    assert texts(table) == [["a", "3 (0-2)", "12.2 [10.0, 14.6]", "n/a", "-"]]
    assert table.rows[0][2].value == pytest.approx(12.2)


def test_an_untested_experiment_has_dashes_beside_what_was_published(tmp_path):
    write_experiment(tmp_path / PUBLISHED)
    bbox, segm = tables(collect([tmp_path]).entries)
    assert texts(segm) == [[PUBLISHED, "-", "-", "-", "-", "18.3", "1.0", "15.6", "28.9"]]
    assert bbox.title == "lvis_v1_val bbox"


def test_another_limit_than_the_published_one_is_pointed_out(tmp_path):
    write_results(tmp_path, PUBLISHED, {"AP": 18.0}, max_detections=1000)
    (table,) = tables(collect([tmp_path]).entries, ["segm"])
    assert any("measured with max detections 1000, published with 300" in note for note in table.notes)


def test_the_row_that_was_published_with_another_limit_says_so():
    names = [
        "cascade_mask_rcnn.eva02_L.sfp.lvisv1.lsj1536.rfs.fed.o365.70k",
        PUBLISHED,
        "mask_rcnn.res50.fpn.lvisv1.multiscale.rfs.1x",
        "mine",
    ]
    (table,) = tables([Entry(name, "lvis_v1_val") for name in names], ["segm"], ["AP"])
    assert [row[0] for row in texts(table)] == [f"{names[0]} (published with max detections 1000)", *names[1:]]


def test_data_sets_are_never_mixed_and_coco_shows_sizes(tmp_path):
    write_results(tmp_path / "1", "a", {"AP": 18.0, "APr": 1.0})
    sizes = {"AP": 40.0, "APs": 20.0, "APm": 40.0, "APl": 60.0, "APr": None, "APc": None, "APf": None}
    write_results(tmp_path / "2", "a", sizes, dataset="coco_2017_val")
    coco, lvis = tables(collect([tmp_path]).entries)
    assert (coco.title, lvis.title) == ("coco_2017_val segm", "lvis_v1_val segm")
    assert coco.header == ("experiment", "AP", "APs", "APm", "APl")


def test_an_unknown_metric_is_refused(tmp_path):
    write_results(tmp_path, "a", {"AP": 18.0})
    with pytest.raises(ConfigError, match="unknown metric 'AP60': did you mean 'AP50'"):
        tables(collect([tmp_path]).entries, metrics=["AP60"])


def run_compare(*arguments):
    code = (
        "import sys; from cvpods_ext.cli.compare import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_command_writes_the_format_that_the_file_name_asks_for(tmp_path):
    write_results(tmp_path / "a", "a_1", {"AP": 18.0})
    for name, sign in (("t.md", "| a_1 | 18.0 |"), ("t.csv", "a_1,18.0"), ("t.tex", r"a\_1 & 18.0")):
        run = run_compare(tmp_path, "--metrics", "AP", "--out", tmp_path / name)
        assert run.returncode == 0, run.stderr
        assert sign in (tmp_path / name).read_text()


def test_the_command_prints_without_torch_and_reports_errors_in_one_line(tmp_path):
    write_results(tmp_path / "a", "a" * 60, {"AP": 18.0})
    run = run_compare(tmp_path)
    assert run.returncode == 0, run.stderr
    assert "a" * 60 in run.stdout
    run = run_compare(tmp_path / "nowhere")
    assert run.returncode == 2
    assert run.stderr.startswith("pods_compare: ")
    assert "Traceback" not in run.stderr


def test_help_is_instant_and_ends_in_examples():
    started = time.perf_counter()
    run = run_compare("--help")
    assert run.returncode == 0
    assert "examples:\n  pods_compare" in run.stdout
    assert time.perf_counter() - started < 5  # 0.1 s measured alone; a generous bound for a busy machine


def command(*arguments):
    call = [sys.executable, "-c", "from cvpods_ext.cli.compare import main; main()", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def test_an_unknown_reference_is_refused_with_the_names_that_there_are(tmp_path):
    for name in ("plain", "cosine"):
        write_results(tmp_path / name, name, {"AP": 10.0})
    done = command(tmp_path, "--reference", "plane")
    assert done.returncode == 2
    message = " ".join(done.stderr.split())
    assert "--reference 'plane' is none of the measured experiments: did you mean 'plain'?" in message
    assert "known: cosine, plain" in message
    assert done.stdout == ""


def test_a_reference_asks_for_intervals(tmp_path):
    write_experiment(tmp_path / "plain")
    write_results(tmp_path / "plain", "plain", {"AP": 10.0})
    done = command(tmp_path, "--reference", "plain")
    assert done.returncode == 2  # there are no data to resample here, and that is said instead of nothing
    assert "PODS_DATASETS" in done.stderr
