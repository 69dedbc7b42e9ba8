"""Weights & Biases through its own library where it is installed, else through a stand-in that records all calls."""

import sys
import types
from importlib.util import find_spec

import numpy as np
import pytest
from tiny_experiment import make_data, make_experiment

from cvpods_ext.cli import train as command
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.logging.metrics import Monitor
from cvpods_ext.engine.logging.writers import TensorBoard, WeightsAndBiases, import_wandb, open_writers
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.detection import METRICS


@pytest.fixture
def experiment(tmp_path):
    folder = make_experiment(tmp_path / "experiment", make_data(tmp_path))
    return load_experiment(folder, [f"output={tmp_path / 'out'}"])


class Recorder(types.ModuleType):
    """The part of the library that is used, by its documented signatures."""

    def __init__(self):
        super().__init__("wandb")
        self.started, self.logged, self.finished = [], [], 0

    def init(self, *, project, name, id, resume, dir, config):
        self.started.append({"project": project, "name": name, "id": id, "resume": resume, "config": config})
        return self

    def log(self, data, *, step):
        self.logged.append((step, data))

    def finish(self):
        self.finished += 1

    @staticmethod
    def Image(array):
        return ("image", array.shape)


@pytest.fixture
def wandb(monkeypatch):
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    return recorder


def test_curves_and_pictures_reach_the_library(experiment, wandb):
    writers = open_writers(experiment, 0, "project")
    with Monitor(experiment.output, start=0, total=2, every=1, writers=writers) as monitor:
        monitor.add(total_loss=1.0, time=0.1, data_time=0.0)
        monitor.step(1, lr=0.5)
        monitor.tested(1, {"bbox": {"AP": 20.0}}, METRICS)
        monitor.picture("train/targets", np.zeros((4, 6, 3), np.uint8), 1)
    assert wandb.logged == [
        (1, {"train/lr": 0.5, "train/data_time": 0.0, "train/time": 0.1, "train/total_loss": 1.0}),
        (1, {"test/bbox/AP": 20.0}),
        (1, {"train/targets": ("image", (4, 6, 3))}),
    ]
    assert wandb.started[0]["project"] == "project"
    assert wandb.started[0]["name"] == "experiment"
    assert wandb.started[0]["config"]["schedule.iters"] == 12
    assert wandb.finished == 1


def test_a_resumed_run_goes_on_under_the_same_identity(experiment, wandb):
    for _ in range(2):
        WeightsAndBiases("project", experiment).close()
    first, second = wandb.started
    assert first["id"] == second["id"]
    assert second["resume"] == "allow"


def test_without_being_asked_there_is_only_tensorboard(experiment, wandb):
    writers = open_writers(experiment, 0)
    assert [type(writer) for writer in writers] == [TensorBoard]
    writers[0].close()
    assert wandb.started == []


def test_a_missing_library_is_reported_before_anything_starts(experiment, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install"):
        import_wandb()
    monkeypatch.setattr(sys, "argv", ["pods_train", "--dir", str(experiment.folder), "--wandb", "project"])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == 2
    assert "--wandb needs the package wandb" in capsys.readouterr().err
    assert not experiment.output.exists()


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_the_real_library_keeps_a_run_without_a_network(experiment, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    writer = WeightsAndBiases("project", experiment)
    writer.scalars({"train/total_loss": 1.0}, 1)
    writer.picture("train/targets", np.zeros((4, 6, 3), np.uint8), 1)
    writer.close()
    written = list((experiment.output / "wandb").glob("offline-run-*/*.wandb"))
    assert len(written) == 1
    assert written[0].stat().st_size > 0
