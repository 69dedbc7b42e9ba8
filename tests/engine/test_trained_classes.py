"""Weights are refused where the data have other classes now than those that they were trained on."""

import json
import shutil

import pytest
import tiny_experiment

import cvpods_ext
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.engine.resume_changes import CLASSES, CONFIG
from cvpods_ext.engine.train import train
from cvpods_ext.engine.trained_classes import require_trained_classes
from cvpods_ext.errors import WeightsError


@pytest.fixture
def trained(tmp_path):
    """A finished run, and the annotation file that it was trained on."""
    import torch

    data = tiny_experiment.make_data(tmp_path)
    folder = tiny_experiment.make_experiment(tmp_path / "tiny", data)
    experiment = load_experiment(folder, ["schedule.iters=1", "schedule.warmup_iters=0", "data.workers=0"])
    train(experiment, torch.device("cpu"))
    return experiment, data.train


def rename(content):
    content["categories"][1]["name"] = "something else"


def swap(content):
    first, second = content["categories"][:2]
    first["name"], second["name"] = second["name"], first["name"]


def exchange(content):
    """One category leaves, another comes: as many as before."""
    last = content["categories"].pop()
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] != last["id"]]
    content["categories"].append({**last, "id": last["id"] + 7, "name": "newcomer"})


@pytest.mark.parametrize("change", [rename, swap, exchange])
def test_other_classes_are_refused_by_test_and_prediction(trained, change):
    experiment, json_file = trained
    weights = experiment.output / "model_final.pth"
    require_trained_classes(experiment, weights)
    content = json.loads(json_file.read_text())
    change(content)
    json_file.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"was trained on 5 classes .* has 5 now; class \d was '.*' and is '.*'"):
        require_trained_classes(experiment, weights)
    with pytest.raises(WeightsError, match="put the classes back"):
        cvpods_ext.load(experiment.folder, device="cpu")


def test_weights_that_say_nothing_of_classes_pass(trained, tmp_path):
    experiment, json_file = trained
    content = json.loads(json_file.read_text())
    rename(content)
    json_file.write_text(json.dumps(content))
    (tmp_path / "elsewhere").mkdir()
    copy = shutil.copy(experiment.output / "model_final.pth", tmp_path / "elsewhere" / "copy.pth")
    require_trained_classes(experiment, tmp_path / "elsewhere" / "copy.pth")
    assert copy
    record = json.loads((experiment.output / CONFIG).read_text())
    del record[CLASSES]
    for older in (json.dumps(record), "[]", "{", '{"classes": 5}'):
        (experiment.output / CONFIG).write_text(older)
        require_trained_classes(experiment, experiment.output / "model_final.pth")
