import json
import os
import time

import pytest

from cvpods_ext.report.status import find_runs, read_run


@pytest.fixture
def run(tmp_path):
    config = {"schedule.iters": 100, "log_every": 20}
    folder = tmp_path / "name" / "outputs"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"experiment": "name", "config": config}))
    return folder


def record(folder, iteration):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"iteration": iteration, "time": 0.5, "total_loss": 1.25, "data_time": 0.1}) + "\n")


def test_progress_and_time_left_follow_from_the_last_whole_record(run):
    record(run, 20)
    record(run, 40)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 60, "ti')  # being written, or cut off by a kill
    status = read_run(run)
    assert (status.state, status.iteration, status.total, status.eta) == ("running", 40, 100, 30.0)


def test_the_record_of_a_test_is_not_taken_for_that_of_a_step(run):
    record(run, 40)
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"iteration": 40, "test/segm/AP": 20.0}) + "\n")
    assert read_run(run).record["total_loss"] == 1.25


def test_a_run_without_records_is_starting(run):
    assert read_run(run).state == "starting"


def test_a_run_that_wrote_nothing_for_long_has_stopped(run):
    record(run, 40)
    assert read_run(run, now=time.time() + 301).state == "stopped"


def test_slow_steps_are_waited_for(run):
    (run / "metrics.jsonl").write_text('{"iteration": 20, "time": 60.0}\n')
    assert read_run(run, now=time.time() + 5000).state == "running"


def test_a_finished_run_has_its_final_weights(run):
    record(run, 100)
    (run / "model_final.pth").touch()
    assert (read_run(run).state, read_run(run).eta) == ("finished", None)


def test_runs_set_aside_and_foreign_json_are_left_out(run, tmp_path):
    record(run, 20)
    old = run / "previous-1"
    old.mkdir()
    (old / "config.json").write_bytes((run / "config.json").read_bytes())
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"name": "something else"}')
    assert [os.path.relpath(status.folder, tmp_path) for status in find_runs(tmp_path)] == ["name/outputs"]


@pytest.mark.parametrize(
    "line", [b"null", b"5", b'{"iteration": 60, "time": "x"}', b'{"iteration": 60, "time": NaN}', b"\xff"]
)
def test_a_damaged_record_is_passed_over(run, line):
    record(run, 40)
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(line + b"\n")
    assert read_run(run).iteration == 40


def test_a_value_that_is_no_number_is_not_shown(run):
    (run / "metrics.jsonl").write_text('{"iteration": 20, "time": 0.5, "total_loss": "low", "data_time": NaN}\n')
    assert read_run(run).record == {"iteration": 20, "time": 0.5}


@pytest.mark.parametrize(
    "config",
    ["5", "[" * 100_000, '{"experiment": "x", "config": {"schedule.iters": "100", "log_every": 20}}',
     '{"experiment": "x", "config": {"schedule.iters": 1e400, "log_every": 20}}', '{"experiment": "x", "config": 5}'],
)  # fmt: skip
def test_a_damaged_config_is_that_of_no_run(run, config):
    (run / "config.json").write_text(config)
    assert read_run(run) is None
