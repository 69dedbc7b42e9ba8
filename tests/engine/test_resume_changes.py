"""A resumed run says what is different from before, and nothing when nothing is."""

import logging
from dataclasses import replace

import pytest
from tiny_experiment import make_data, make_experiment

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.config.override import apply_overrides
from cvpods_ext.engine.init_run import save_config
from cvpods_ext.engine.resume_changes import CONFIG, warn_of_changes


@pytest.fixture
def started(tmp_path):
    """An experiment whose run has written its config."""
    experiment = load_experiment(make_experiment(tmp_path / "experiment", make_data(tmp_path)))
    save_config(experiment)
    return experiment


def warnings(experiment, caplog, *overrides):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_of_changes(replace(experiment, config=apply_overrides(experiment.config, overrides)))
    return caplog.messages


def test_nothing_is_said_of_an_unchanged_run(started, caplog):
    assert warnings(started, caplog) == []
    assert warnings(started, caplog, "log_every=7", "test.every=5", "data.workers=1") == []


def test_changed_settings_are_named_with_both_values(started, caplog):
    [message] = warnings(started, caplog, "schedule.lr=0.01", "data.train_sizes=(40,)")
    assert message == (
        "resuming with other settings than before: data.train_sizes=[40, 48] -> [40], schedule.lr=0.05 -> 0.01"
    )


def test_changed_sources_are_named(started, caplog):
    with open(started.folder / "net.py", "a", encoding="utf-8") as file:
        file.write("# another\n")
    assert warnings(started, caplog) == [f"resuming with other Python files in {started.folder} than before"]


def test_a_damaged_record_of_the_run_is_no_error(started, caplog):
    (started.output / CONFIG).write_text('{"config": 5')
    assert "cannot be read" in warnings(started, caplog)[0]
