"""Which results belong together, and which may be compared."""

import pytest
from results_files import write_experiment, write_results

from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.report.runs import collect, comparable, labels


def test_runs_that_differ_in_the_seed_are_one_row(tmp_path):
    for seed in range(3):
        changes = {
            "seed": [0, seed],
            "output": ["", f"o{seed}"],
            "model.init": ["none", f"../trunk/seed{seed}/model.pth"],
        }
        write_results(tmp_path / "a" / f"seed{seed}", "a", {"AP": 10.0 + seed}, seed=seed, changes=changes)
    (entry,) = collect([tmp_path])
    assert len(entry.runs) == 3
    assert entry.values("segm", "AP") == [10.0, 11.0, 12.0]


def test_the_same_weights_tested_twice_count_once(tmp_path):
    write_results(tmp_path / "1", "a", {"AP": 10.0})
    write_results(tmp_path / "2", "a", {"AP": 11.0})
    (entry,) = collect([tmp_path])
    assert entry.values("segm", "AP") == [11.0]


def test_another_setting_makes_another_row_with_the_difference_in_its_name(tmp_path):
    write_results(tmp_path / "1", "a", {"AP": 10.0}, changes={"schedule.lr": [0.02, 0.01]})
    write_results(tmp_path / "2", "a", {"AP": 11.0}, changes={"schedule.lr": [0.02, 0.04]}, weights_sha256="other")
    assert labels(collect([tmp_path])) == ["a (schedule.lr=0.01)", "a (schedule.lr=0.04)"]


def test_rows_under_other_conditions_say_so_and_do_not_compete(tmp_path):
    for name in ("a", "b"):
        write_results(tmp_path / name, name, {"AP": 10.0})
    write_results(tmp_path / "c", "c", {"AP": 90.0}, max_detections=1000)
    write_results(tmp_path / "d", "d", {"AP": 90.0}, smoke=True)
    write_results(tmp_path / "e", "e", {"AP": 90.0}, data_sha256="e" * 64)
    entries = collect([tmp_path])
    assert labels(entries) == ["a", "b", "c (max_detections=1000)", "d (smoke)", "e (data_sha256=eeeeeeee)"]
    assert comparable(entries) == [True, True, False, False, False]


def test_rows_that_nothing_distinguishes_are_named_by_their_folder(tmp_path):
    write_results(tmp_path / "x", "a", {"AP": 1.0}, evaluator="hotcoco", protocol="lvis")
    write_results(tmp_path / "y", "a", {"AP": 2.0}, changes={"new": [1, 2]}, weights_sha256="w", protocol="lvis")
    names = labels(collect([tmp_path]))
    assert len(set(names)) == 2


def test_untested_experiments_are_listed_and_hidden_folders_are_not(tmp_path):
    write_experiment(tmp_path / "untested")
    write_results(tmp_path / "tested", "tested", {"AP": 1.0})
    write_results(tmp_path / ".trash", "old", {"AP": 1.0})
    entries = collect([tmp_path])
    assert [(entry.experiment, len(entry.runs)) for entry in entries] == [("tested", 1), ("untested", 0)]
    assert entries[1].dataset == "lvis_v1_val"


def test_a_file_can_be_named_itself_and_is_counted_once(tmp_path):
    path = write_results(tmp_path / "a", "a", {"AP": 1.0})
    (entry,) = collect([path, tmp_path])
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
    assert labels(collect([tmp_path])) == ["a (smoke)", "b (smoke)"]
