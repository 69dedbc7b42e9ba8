"""A resumed run says what is different from before, and nothing when nothing is."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_experiment import make_data, make_experiment

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.config.override import apply_overrides
from cvpods_ext.engine.init_run import save_config
from cvpods_ext.engine.resume_changes import CONFIG, warn_of_changes
from cvpods_ext.errors import DataError
from cvpods_ext.tasks.detection import TASK


@pytest.fixture
def started(tmp_path):
    """An experiment whose run has written its config."""
    experiment = load_experiment(make_experiment(tmp_path / "experiment", make_data(tmp_path)))
    save_config(experiment, TASK.training_set_sha256(experiment))
    return experiment


def warnings(experiment, caplog, *overrides):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        changed = replace(experiment, config=apply_overrides(experiment.config, overrides))
        warn_of_changes(changed, TASK.training_set_sha256(changed))
    return caplog.messages


def test_nothing_is_said_of_an_unchanged_run(started, caplog):
    assert warnings(started, caplog) == []
    assert warnings(started, caplog, "log_every=7", "test.every=5", "data.workers=1") == []


def test_changed_settings_are_named_with_both_values(started, caplog):
    [message] = warnings(started, caplog, "schedule.lr=0.01", "data.train_sizes=(40,)")
    assert message == (
        "resuming with other settings than before:\n  data.train_sizes=[40, 48] -> [40]\n  schedule.lr=0.05 -> 0.01"
    )


def test_changed_sources_are_named(started, caplog):
    with open(started.folder / "net.py", "a", encoding="utf-8") as file:
        file.write("# another\n")
    assert warnings(started, caplog) == [f"resuming with other Python files in {started.folder} than before"]


def train_json(experiment):
    return Path(experiment.config.data.train.annotations)


def mend_a_box(content):
    content["annotations"][0]["bbox"][2] += 1.0


def drop_an_image(content):
    image = content["images"].pop()
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] != image["id"]]


def rename_a_category(content):
    content["categories"][0]["name"] = "another thing"


@pytest.mark.parametrize("change", [mend_a_box, drop_an_image, rename_a_category])
def test_another_content_of_the_training_set_is_refused(started, caplog, change):
    content = json.loads(train_json(started).read_text())
    change(content)
    train_json(started).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"has another content than when the run in .* began") as raised:
        warnings(started, caplog)
    for words in (str(train_json(started)), "--resume", "data.train=...", "output=... and model.init=FILE"):
        assert words in str(raised.value)


def test_the_training_set_may_be_exchanged_by_its_setting(started, caplog):
    content = json.loads(train_json(started).read_text())
    drop_an_image(content)
    (train_json(started).parent / "shorter.json").write_text(json.dumps(content))
    files = replace(started.config.data.train, annotations=str(train_json(started).parent / "shorter.json"))
    changed = replace(started, config=replace(started.config, data=replace(started.config.data, train=files)))
    with caplog.at_level(logging.WARNING):
        warn_of_changes(changed, TASK.training_set_sha256(changed))
    assert "shorter.json" in caplog.messages[-1]


def test_an_older_record_without_a_digest_is_not_compared(started, caplog):
    record = json.loads((started.output / CONFIG).read_text())
    del record["training_set_sha256"]
    (started.output / CONFIG).write_text(json.dumps(record))
    assert warnings(started, caplog) == []


def test_a_damaged_record_of_the_run_is_no_error(started, caplog):
    (started.output / CONFIG).write_text('{"config": 5')
    assert "cannot be read" in warnings(started, caplog)[0]
