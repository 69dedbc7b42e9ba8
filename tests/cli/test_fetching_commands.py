"""Commands that fetch: training from an address, testing and predicting with published weights, in real runs."""

import importlib
import json
import logging
import sys

import pytest
import torch
from file_server import FileServer, drop_after
from tiny_experiment import make_data, make_experiment

import cvpods_ext
from cvpods_ext.config import published_weights
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.config.published_weights import PublishedWeights
from cvpods_ext.errors import WeightsError

CACHES = ("PODS_WEIGHTS", "FVCORE_CACHE", "CVPODS_CACHE", "XDG_CACHE_HOME", "PODS_OUTPUT")
CPU = ("--device", "cpu", "data.workers=0")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment, and the bytes of weights for it."""
    root = tmp_path_factory.mktemp("published")
    folder = make_experiment(root / "tiny.published", make_data(root))
    torch.manual_seed(1)
    torch.save({"model": load_experiment(folder).build_model().state_dict()}, root / "w.pth")
    return folder, (root / "w.pth").read_bytes()


@pytest.fixture
def address(made, tmp_path, monkeypatch):
    """Where the weights are served from, to a machine that has none."""
    for name in (*CACHES, "PODS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with FileServer({"/w.pth": made[1]}) as server:
        monkeypatch.setattr(
            published_weights,
            "load",
            lambda: {"tiny.published": PublishedWeights(f"{server.url}/w.pth", None, "", "me")},
        )
        yield server


@pytest.fixture
def run(made, monkeypatch, capsys, tmp_path):
    """A command on the experiment; returns exit status and stderr."""

    def call(command, *arguments):
        monkeypatch.setattr(logging.getLogger("cvpods_ext"), "handlers", [])
        given = map(str, arguments)
        monkeypatch.setattr(
            sys, "argv", [f"pods_{command}", "--dir", str(made[0]), *given, f"output={tmp_path / 'out'}"]
        )
        try:
            importlib.import_module(f"cvpods_ext.cli.{command}").main()
            status = 0
        except SystemExit as done:
            status = done.code or 0
        return status, capsys.readouterr().err

    return call


def test_a_test_of_published_weights_fetches_them_once(address, run, tmp_path):
    status, err = run("test", "--published", *CPU)
    assert status == 0, err
    assert f"fetching w.pth ({len(address.files['/w.pth']) / 1000:.1f} kB) from {address.url}/w.pth" in err
    assert json.loads((tmp_path / "out/results.json").read_text())["metrics"]["bbox"]["AP"] is not None
    status, err = run("test", "--weights", f"{address.url}/w.pth", *CPU)
    assert status == 0, err
    assert len(address.gets("/w.pth")) == 1


def test_predicting_with_published_weights(address, run, made, tmp_path):
    picture = next((made[0].parent).rglob("*.jpg"))
    status, err = run(
        "predict", picture, "--published", "--no-pictures", "--json", tmp_path / "found.json", "--device", "cpu"
    )
    assert status == 0, err
    assert json.loads((tmp_path / "found.json").read_text())


def test_published_weights_from_python(address, made):
    model = cvpods_ext.load(made[0], weights="published", device="cpu")
    assert model.weights.name == "w.pth"


def test_two_kinds_of_weights_at_once_are_refused(run):
    status, err = run("test", "--published", "--weights", "w.pth")
    assert (status, "not allowed with argument" in err) == (2, True)


def test_an_experiment_without_published_weights_says_which_have_some(run, monkeypatch):
    status, err = run("test", "--published", *CPU)
    assert status == 2
    assert "tiny.published has no published weights" in err
    assert "cascade_mask_rcnn.eva02_L.sfp.lvisv1.lsj1536.rfs.fed.40k" in err


def test_an_untrained_experiment_points_to_its_published_weights(address, run):
    status, err = run("test", *CPU)
    assert (status, "with --published" in err) == (2, True)


def test_training_from_an_address_says_what_it_fetches_and_goes_on(address, run):
    status, err = run("train", *CPU, f"model.init={address.url}/w.pth", "model.init_skip=()", "schedule.iters=1")
    assert status == 0, err
    assert f"from {address.url}/w.pth to" in err
    assert "loaded" in err


def test_several_processes_fetch_once(address, run):
    overrides = (f"model.init={address.url}/w.pth", "model.init_skip=()", "schedule.iters=1", "data.workers=0")
    status, err = run("train", "--device", "cpu", "--num-gpus", "2", *overrides)
    assert status == 0, err
    assert len(address.gets("/w.pth")) == 1


def test_training_offline_ends_before_anything_is_built(address, run, monkeypatch):
    monkeypatch.setenv("PODS_OFFLINE", "1")
    status, err = run("train", *CPU, f"model.init={address.url}/w.pth")
    assert (status, "PODS_OFFLINE=1 forbids" in err, "put it at" in err) == (2, True, True)
    assert address.seen == []


def test_a_smoke_run_fetches_nothing(address, run):
    status, err = run("train", "--smoke", *CPU, f"model.init={address.url}/w.pth")
    assert status == 0, err
    assert "is done without" in err
    assert address.seen == []


def test_an_untrained_first_stage_names_its_published_weights(address, made, tmp_path):
    from cvpods_ext.modeling.weights import locate

    (tmp_path / "tiny.published").mkdir()
    (tmp_path / "tiny.published/config.py").write_text("")
    with pytest.raises(WeightsError, match=rf"published weights with model\.init={address.url}/w\.pth"):
        locate("experiment:tiny.published", tmp_path / "second")


def test_a_fetch_that_is_interrupted_keeps_its_part_and_says_so(address, monkeypatch, capsys, tmp_path):
    def interrupt(handler, path):
        drop_after(1000)(handler, path)
        monkeypatch.setattr("time.sleep", interrupted)

    def interrupted(_):
        raise KeyboardInterrupt

    address.faults["/w.pth"] = [interrupt]
    monkeypatch.setattr(sys, "argv", ["pods_weights", "fetch", f"{address.url}/w.pth"])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module("cvpods_ext.cli.weights").main()
    assert stopped.value.code == 130
    assert "pods_weights: interrupted" in capsys.readouterr().err
    part = next((tmp_path / "home").rglob("w.pth.part"))
    assert part.stat().st_size == 1000
    assert not list((tmp_path / "home").rglob("*.lock"))
