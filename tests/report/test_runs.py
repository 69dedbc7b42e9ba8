"""Which results belong together, and which may be compared."""

import shutil
from pathlib import Path

import pytest
from results_files import write_experiment, write_results

from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.results import Results
from cvpods_ext.report.compare import runs_and_seeds, tables
from cvpods_ext.report.runs import Entry, collect, comparable, labels, measured_or_not


def test_runs_that_differ_in_the_seed_are_one_row(tmp_path):
    for seed in range(3):
        changes = {
            "seed": [0, seed],
            "output": ["", f"o{seed}"],
            "model.init": ["none", f"../trunk/seed{seed}/model.pth"],
        }
        write_results(tmp_path / "a" / f"seed{seed}", "a", {"AP": 10.0 + seed}, seed=seed, changes=changes)
    (entry,) = collect([tmp_path]).entries
    assert len(entry.runs) == 3
    assert entry.values("segm", "AP") == [10.0, 11.0, 12.0]


def test_the_same_weights_tested_twice_count_once(tmp_path):
    write_results(tmp_path / "1", "a", {"AP": 10.0})
    write_results(tmp_path / "2", "a", {"AP": 11.0})
    (entry,) = collect([tmp_path]).entries
    assert entry.values("segm", "AP") == [11.0]


def test_another_setting_makes_another_row_with_the_difference_in_its_name(tmp_path):
    write_results(tmp_path / "1", "a", {"AP": 10.0}, changes={"schedule.lr": [0.02, 0.01]})
    write_results(tmp_path / "2", "a", {"AP": 11.0}, changes={"schedule.lr": [0.02, 0.04]}, weights_sha256="other")
    assert labels(collect([tmp_path]).entries) == ["a (schedule.lr=0.01)", "a (schedule.lr=0.04)"]


def test_rows_under_other_conditions_say_so_and_do_not_compete(tmp_path):
    for name in ("a", "b"):
        write_results(tmp_path / name, name, {"AP": 10.0})
    write_results(tmp_path / "c", "c", {"AP": 90.0}, max_detections=1000)
    write_results(tmp_path / "d", "d", {"AP": 90.0}, smoke=True)
    write_results(tmp_path / "e", "e", {"AP": 90.0}, data_sha256="e" * 64)
    entries = collect([tmp_path]).entries
    assert labels(entries) == ["a", "b", "c (max_detections=1000)", "d (smoke)", "e (data_sha256=eeeeeeee)"]
    assert comparable(entries) == [True, True, False, False, False]


def test_rows_that_nothing_distinguishes_are_named_by_their_folder(tmp_path):
    write_results(tmp_path / "x", "a", {"AP": 1.0}, evaluator="hotcoco", protocol="lvis")
    write_results(tmp_path / "y", "a", {"AP": 2.0}, changes={"new": [1, 2]}, weights_sha256="w", protocol="lvis")
    names = labels(collect([tmp_path]).entries)
    assert len(set(names)) == 2


def test_untested_experiments_are_listed_and_hidden_folders_are_not(tmp_path):
    write_experiment(tmp_path / "untested")
    write_results(tmp_path / "tested", "tested", {"AP": 1.0})
    write_results(tmp_path / ".trash", "old", {"AP": 1.0})
    entries = collect([tmp_path]).entries
    assert [(entry.experiment, len(entry.runs)) for entry in entries] == [("tested", 1), ("untested", 0)]
    assert entries[1].dataset == "lvis_v1_val"


def test_a_file_can_be_named_itself_and_is_counted_once(tmp_path):
    path = write_results(tmp_path / "a", "a", {"AP": 1.0})
    (entry,) = collect([path, tmp_path]).entries
    assert len(entry.runs) == 1


def test_nothing_found_and_broken_files_are_answered_with_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="Run pods_test"):
        collect([tmp_path])
    with pytest.raises(ConfigError, match="neither a folder"):
        collect([tmp_path / "absent"])
    (tmp_path / "results.json").write_text('{"experiment": "a"')
    with pytest.raises(DataError, match=r"results\.json is not valid JSON"):
        collect([tmp_path])


def test_a_smoke_run_is_called_one_even_among_its_like(tmp_path):
    for name in ("a", "b"):
        write_results(tmp_path / name, name, {"AP": 10.0}, smoke=True)
    assert labels(collect([tmp_path]).entries) == ["a (smoke)", "b (smoke)"]


def write_run(folder, seed=0, **provenance):
    made = {"seed": seed, "sources_sha256": "a" * 64, "versions": {"cvpods_ext": "0.1.0"}, **provenance}
    results = Results(
        experiment="a",
        dataset="d",
        metrics={"segm": {"AP": provenance.get("ap", 10.0)}},
        settings={"weights_sha256": f"{folder}", "images": 5, "boxes_outside_their_image": seed},
        provenance=made,
    )
    folder.mkdir(parents=True)
    results.write(folder / "results.json")


@pytest.mark.parametrize(
    "other",
    [
        {"sources_sha256": "b" * 64},
        {"versions": {"cvpods_ext": "0.2.0"}},
        {"data_sha256": "e" * 64},
        {"image_sizes_sha256": "f" * 64},
    ],
)
def test_another_network_version_or_data_set_is_not_another_seed(other, tmp_path):
    write_run(tmp_path / "1", seed=0)
    write_run(tmp_path / "2", seed=1)
    assert len(collect([tmp_path]).entries) == 1
    write_run(tmp_path / "3", seed=2, **other)
    entries = collect([tmp_path]).entries
    assert [entry.seeds for entry in entries] == [[0, 1], [2]]
    assert len(set(labels(entries))) == 2


def test_another_setting_of_the_test_is_not_another_seed(tmp_path):
    write_results(tmp_path / "1", "a", {"AP": 10.0}, score_threshold=0.1)
    write_results(tmp_path / "2", "a", {"AP": 11.0}, score_threshold=0.2, seed=1)
    assert labels(collect([tmp_path]).entries) == ["a (score_threshold=0.1)", "a (score_threshold=0.2)"]


def test_of_equal_seeds_the_newest_counts_and_the_table_says_so(tmp_path):
    write_run(tmp_path / "z", date="2026-01-01T00:00:00+00:00", ap=1.0)
    write_run(tmp_path / "y", date="2026-03-01T00:00:00+00:00", ap=3.0)
    write_run(tmp_path / "x", date="2026-02-01T00:00:00+00:00", ap=2.0)
    (entry,) = collect([tmp_path]).entries
    assert (entry.values("segm", "AP"), entry.superseded) == ([3.0], 2)
    (table,) = tables([entry])
    assert "a: 2 older results of the same seed or weights left out, the newest counts" in table.notes


def test_runs_that_were_set_aside_are_left_out_and_counted(tmp_path):
    write_run(tmp_path / "outputs")
    write_run(tmp_path / "outputs" / "previous-1", ap=99.0)
    write_run(tmp_path / "outputs" / "previous-2", seed=1, ap=99.0)
    found = collect([tmp_path])
    assert [entry.values("segm", "AP") for entry in found.entries] == [[10.0]]
    (table,) = tables(found.entries, notes=found.notes)
    assert "left out: 2 results of earlier runs, set aside in previous-* folders" in table.notes
    (earlier,) = collect([tmp_path / "outputs" / "previous-1"]).entries
    assert earlier.values("segm", "AP") == [99.0], "whoever names such a folder gets it"


def test_tests_during_training_are_no_seeds(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "a" / "outputs" / "tests" / "iter_0000010", ap=1.0, date="2027")
    found = collect([tmp_path])
    assert [entry.values("segm", "AP") for entry in found.entries] == [[10.0]]
    assert found.notes == ["left out: 1 result of tests during training, in tests/iter_* folders"]


def test_results_of_a_task_that_is_not_there_are_shown_with_their_own_names(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        folder = tmp_path / name
        folder.mkdir()
        metrics = {"depth": {"rmse": value}}
        Results(experiment=name, dataset="d", task="somewhere.depth", metrics=metrics).write(folder / "results.json")
    (table,) = tables(collect([tmp_path]).entries)
    assert table.header == ("experiment", "rmse")
    assert [row[1].text for row in table.rows] == ["1.0", "2.0"]
    assert not any(cell.best for row in table.rows for cell in row), "nobody knows whether less is better"
    assert any("unknown to this version" in note for note in table.notes)


def test_seeds_are_named_in_brief():
    runs = [Results(experiment="a", dataset="d", metrics={}, provenance={"seed": seed}) for seed in (3, 0, 1, 2, 7)]
    assert runs_and_seeds(Entry("a", "d", runs=tuple(runs[:4]))) == "4 (0-3)"
    assert runs_and_seeds(Entry("a", "d", runs=tuple(runs))) == "5 (0, 1, 2, 3, 7)"
    assert runs_and_seeds(Entry("a", "d")) == "-"


def test_an_experiment_keeps_its_results_beside_its_config(tmp_path):
    folder = write_experiment(tmp_path / "a")
    assert measured_or_not(folder)[0].runs == ()
    write_results(folder, "a", {"AP": 1.0})
    for seed in (1, 2):
        write_results(folder / "results" / f"seed{seed}", "a", {"AP": 1.0}, seed=seed)
    write_results(folder / "outputs" / "seed3", "a", {"AP": 1.0}, seed=3)
    (entry,) = measured_or_not(folder)
    assert entry.seeds == [0, 1, 2]


def copy_of(folder, name):
    shutil.copytree(folder, folder.with_name(name))
    return folder.with_name(name)


def test_results_of_a_copied_folder_are_a_row_of_its_own_and_said_to_be_the_same_run(tmp_path):
    folder = write_experiment(tmp_path / "a")
    write_run(folder / "results" / "seed0", weights_sha256="w0")
    copied = copy_of(folder, "b")
    found = collect([tmp_path]).entries
    assert [(entry.experiment, len(entry.runs), entry.formerly) for entry in found] == [("a", 1, ()), ("b", 1, ("a",))]
    (table,) = tables(found)
    assert [row[0].text for row in table.rows] == ["a", "b"]
    assert "a, b: one run, whose weights or detections are the same" in table.notes
    assert "b: made when its folder was called a" in table.notes
    assert measured_or_not(copied)[0].experiment == "b"
    write_run(copied / "results" / "seed1", seed=1, weights_sha256="w1")  # what is trained there joins it
    assert [(entry.experiment, entry.seeds) for entry in collect([tmp_path]).entries] == [("a", [0]), ("b", [0, 1])]


def write_imported(folder, digest, **metrics):
    made = {"detections": "theirs.json", "detections_sha256": digest, "data_sha256": "d" * 64}
    folder.mkdir(parents=True)
    Results(experiment="theirs", dataset="d", metrics={"segm": metrics}, provenance=made).write(folder / "results.json")


def test_the_same_detections_evaluated_in_two_folders_are_one_run(tmp_path):
    for name in ("a", "b"):
        write_experiment(tmp_path / name)
        write_imported(tmp_path / name / "outputs" / "imported" / "theirs", "e" * 64, AP=10.0)
    entries = [entry for entry in collect([tmp_path]).entries if entry.runs]
    assert [(entry.experiment, len(entry.runs), entry.superseded) for entry in entries] == [("theirs", 1, 1)]
    (table,) = tables(entries)
    assert "theirs: 1 older result of the same detections left out, the newest counts" in table.notes


def test_other_detections_of_the_same_name_are_no_seeds(tmp_path):
    write_imported(tmp_path / "a", "e" * 64, AP=10.0)
    write_imported(tmp_path / "b", "f" * 64, AP=30.0)
    names = labels(collect([tmp_path]).entries)
    assert names == ["theirs (detections=eeeeeeee)", "theirs (detections=ffffffff)"]


def test_equal_weights_under_two_seeds_are_one_run(tmp_path):
    write_run(tmp_path / "1", seed=0, weights_sha256="w", date="2026-01-01")
    write_run(tmp_path / "2", seed=1, weights_sha256="w", date="2026-02-01")
    write_run(tmp_path / "3", seed=2, weights_sha256="other")
    (entry,) = collect([tmp_path]).entries
    assert (entry.seeds, entry.superseded) == ([1, 2], 1)


def test_the_origin_and_the_limits_of_the_frequency_groups_stand_under_the_table(tmp_path):
    write_results(tmp_path / "a", "a", {"AP": 10.0}, protocol="lvis")
    (table,) = tables(collect([tmp_path]).entries)
    (note,) = [note for note in table.notes if note.startswith("frequency groups")]
    assert note.startswith("frequency groups: as the test set states them (LVIS: rare <= 10 <")
    own = "training images per class in mine.json: rare <= 5 < common <= 50 < frequent"
    write_results(tmp_path / "b", "b", {"AP": 10.0}, protocol="lvis", frequency=own)
    (table,) = tables(collect([tmp_path]).entries)
    assert [each for each in table.notes if each.startswith("frequency groups")] == [
        f"{note} (a)",
        f"frequency groups: {own} (b)",
    ]


def test_rows_of_one_training_with_other_tests_are_said_to_be_that(tmp_path):
    for name, found in (("plain", 1.0), ("norcal", 2.0)):
        folder = write_experiment(tmp_path / name)
        write_results(folder, name, {"AP": found}, weights_sha256="w0")
    (table,) = tables(collect([tmp_path]).entries)
    assert "norcal, plain: one training, tested differently" in table.notes


def test_a_measured_experiment_stands_once_where_one_is_in_its_folder(tmp_path, monkeypatch):
    folder = write_experiment(tmp_path / "a")
    write_results(folder, "a", {"AP": 1.0})
    monkeypatch.chdir(folder)
    assert [(entry.experiment, len(entry.runs)) for entry in collect([Path()]).entries] == [("a", 1)]


def test_a_folder_that_cannot_be_loaded_hides_no_others(tmp_path):
    write_run(tmp_path / "sound")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.py").write_text("config = 3\n")
    (broken / "net.py").write_text("")
    found = collect([tmp_path])
    assert len(found.entries) == 1
    assert len(found.notes) == 1
    assert found.notes[0].startswith("left out: broken, ")
    assert "must define `config = override(BASE, ...)`, got 3" in found.notes[0]
    with pytest.raises(ConfigError, match="must define `config"):
        collect([broken])
