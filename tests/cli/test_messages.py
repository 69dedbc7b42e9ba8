"""What a user reads after a mistake: one message with the value, the place and the remedy, and exit status 2."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

from cvpods_ext.cli import test as pods_test
from cvpods_ext.cli import train as pods_train
from cvpods_ext.data.synthetic.write import generate

CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI
config = override(
    MINI,
    model=dict(init="none"),
    schedule=dict(iters=2, batch_size=2, images_per_device=2, warmup_iters=1),
    checkpoint_every=2, picture_every=0,
)
"""
NET = """
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.data.num_shots import class_counts
from cvpods_ext.modeling.detection.build import BoxBranch, mask_rcnn_fpn
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.necks.fpn import narrow_resnet_fpn

def build_model(cfg):
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=num_classes(cfg.data, cfg.folder),
        backbone=narrow_resnet_fpn(),
        box=BoxBranch(loss=GroupReweightedCrossEntropy(class_counts(cfg.data, cfg.folder))),
    )
"""


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    root = tmp_path_factory.mktemp("box")
    generate(root, images_train=8, images_val=3, num_classes=6, image_size=64)
    return root


@pytest.fixture
def world(tmp_path, pristine, monkeypatch):
    """A data root and an experiment that train in a second; tests spoil one thing each."""
    shutil.copytree(pristine, tmp_path / "datasets")
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "config.py").write_text(CONFIG)
    (folder / "net.py").write_text(NET)
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.delenv("PODS_OUTPUT", raising=False)
    monkeypatch.chdir(folder)
    return tmp_path


def run(command, monkeypatch, capsys, *arguments):
    """Exit status and what was written to stderr."""
    monkeypatch.setattr(sys, "argv", ["pods", "--device", "cpu", *arguments])
    try:
        command.main()
        status = 0
    except SystemExit as done:
        status = done.code
    return status, capsys.readouterr().err


def train_json(world):
    return world / "datasets" / "lvis" / "lvis_box_train.json"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_all_is_well_to_begin_with(world, monkeypatch, capsys):
    assert run(pods_train, monkeypatch, capsys)[0] == 0
    assert run(pods_test, monkeypatch, capsys)[0] == 0
    assert json.loads((world / "experiment" / "results.json").read_text())["metrics"]["segm"]["AP"] is not None
    assert (world / "experiment" / "outputs" / "pictures" / "predictions.png").is_file()


def drop_categories(world):
    edit(train_json(world), lambda content: content.pop("categories"))


def truncate_json(world):
    path = train_json(world)
    path.write_bytes(path.read_bytes()[:2000])


def shorten_num_shots(world):
    (world / "datasets" / "short.json").write_text("[1, 5, 2, 5]")
    config = world / "experiment" / "config.py"
    config.write_text(CONFIG.replace("MINI,", 'MINI, data=dict(num_shots="short.json"),', 1))


def misspell_a_key(world):
    (world / "experiment" / "config.py").write_text(CONFIG.replace("iters=2", "itres=2"))


SPOILT = {
    "missing json": (lambda world: train_json(world).unlink(), ["lvis_box_train.json"]),
    "truncated json": (truncate_json, ["lvis_box_train.json"]),
    "json without categories": (drop_categories, ["lvis_box_train.json", "categories"]),
    "no images": (lambda world: shutil.rmtree(world / "datasets" / "coco"), ["image", "pods_data doctor"]),
    "class counts of another length": (shorten_num_shots, ["short.json", "2 classes", "6 categories"]),
    "unknown config key": (misspell_a_key, ["config.py", "'schedule.itres'", "did you mean 'iters'"]),
    "no experiment": (lambda world: (world / "experiment" / "config.py").unlink(), ["not an experiment", "--dir"]),
}


@pytest.mark.parametrize("mistake", SPOILT)
def test_a_mistake_is_one_message_and_status_two(world, monkeypatch, capsys, mistake):
    spoil, words = SPOILT[mistake]
    spoil(world)
    status, message = run(pods_train, monkeypatch, capsys)
    assert status == 2
    assert "Traceback" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["schedule.iters=9k"], ["schedule.iters must be int like 2, got str '9k'"]),
        (["model.init=experiment:first"], ["first", "no experiment"]),
        (["model.init=weights.pth"], ["weights.pth", "Looked for"]),
        (["--num-gpus", "4", "schedule.batch_size=6"], ["batch_size=6", "4 processes"]),
    ],
)
def test_a_wrong_argument_is_one_message_and_status_two(world, monkeypatch, capsys, arguments, words):
    status, message = run(pods_train, monkeypatch, capsys, *arguments)
    assert status == 2
    for word in words:
        assert word in message


def test_a_second_stage_says_how_to_train_the_first(world, monkeypatch, capsys):
    shutil.copytree(world / "experiment", world / "first")
    status, message = run(pods_train, monkeypatch, capsys, "model.init=experiment:first")
    assert status == 2
    assert "has not been trained yet" in message
    assert "cd ../first && pods_train" in message


def test_testing_before_training_says_so(world, monkeypatch, capsys):
    status, message = run(pods_test, monkeypatch, capsys)
    assert status == 2
    assert "nothing is trained yet" in message


def test_weights_of_another_class_count_are_not_tested(world, monkeypatch, capsys):
    assert run(pods_train, monkeypatch, capsys)[0] == 0
    final = world / "experiment" / "outputs" / "model_final.pth"
    state = torch.load(final, weights_only=True)
    key = "roi_heads.box_predictor.cls_score.weight"
    state["model"][key] = state["model"][key][:4]
    torch.save(state, world / "other.pth")
    status, message = run(pods_test, monkeypatch, capsys, "--weights", str(world / "other.pth"))
    assert status == 2
    assert "does not fit this experiment" in message
    assert "cls_score" in message


def test_a_corrupt_image_is_skipped_in_training_and_named_in_testing(world, monkeypatch, capsys):
    images = sorted((world / "datasets" / "coco" / "train2017").glob("*.jpg"))
    images[0].write_bytes(images[0].read_bytes()[:100])
    status, message = run(pods_train, monkeypatch, capsys)
    assert status == 0, message
    broken = sorted((world / "datasets" / "coco" / "val2017").glob("*.jpg"))[0]
    broken.write_bytes(b"no picture")
    status, message = run(pods_test, monkeypatch, capsys)
    assert status == 2
    assert broken.name in message


def test_a_broken_polygon_is_counted_not_lost_silently(world, monkeypatch, capsys):
    edit(train_json(world), lambda content: content["annotations"][0].update(segmentation=[[1.0, 2.0, 3.0, 4.0]]))
    status, message = run(pods_train, monkeypatch, capsys)
    assert status == 0
    assert "lvis_box_train.json: 1 x every polygon has fewer than 3 points" in message


def test_class_counts_are_read_without_unpickling(world, monkeypatch, capsys):
    np.save(world / "datasets" / "evil.npy", np.array([{}], dtype=object), allow_pickle=True)
    status, message = run(pods_train, monkeypatch, capsys, "data.num_shots=evil.npy")
    assert status == 2
    assert "evil.npy" in message
