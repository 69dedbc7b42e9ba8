"""The synthetic set of image classification: reproducible, long-tailed, and never mixed with what is there."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from cvpods_ext.cli import data as pods_data
from cvpods_ext.config.classification import ClassificationData, ImageFiles
from cvpods_ext.data import classification
from cvpods_ext.data.synthetic.class_folders import RECIPE, UNFINISHED, ClassFolderOptions, generate
from cvpods_ext.errors import ConfigError, DataError

SMALL = dict(num_classes=4, most=10, ratio=5.0, images_val=3, image_size=32, seed=2)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("data"), **SMALL)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def listed(folder, split):
    files = {each: ImageFiles(images=str(folder / each)) for each in ("train", "val")}
    data = ClassificationData(train=files["train"], test=files["val"])
    return classification.load(data, files[split], folder)


def test_counts_fall_exponentially_from_the_most_to_the_ratio():
    assert ClassFolderOptions(num_classes=3, most=100, ratio=100).counts().tolist() == [100, 10, 1]
    counts = ClassFolderOptions().counts()
    assert (counts[0], counts[-1], len(counts)) == (300, 3, 20)
    assert (np.diff(counts) <= 0).all()


def test_the_set_is_read_as_a_folder_per_class(shapes):
    train, val = listed(shapes, "train"), listed(shapes, "val")
    assert sorted(train.counts().tolist(), reverse=True) == ClassFolderOptions(**SMALL).counts().tolist()
    assert val.counts().tolist() == [3] * 4
    for position in range(len(val)):
        with Image.open(val.image_path(position)) as image:
            assert image.size == (32, 32)


def test_the_same_options_give_the_same_bytes_and_another_seed_other_ones(shapes, tmp_path):
    again, other = generate(tmp_path / "a", **SMALL), generate(tmp_path / "b", **{**SMALL, "seed": 3})
    assert contents(again) == contents(shapes)
    assert contents(other) != contents(shapes)


def test_training_and_validation_images_differ(shapes):
    images = [data for name, data in contents(shapes).items() if name.endswith(".jpg")]
    assert len(set(images)) == len(images)


def test_a_finished_set_is_not_drawn_again(shapes):
    before = {path: path.stat().st_mtime_ns for path in shapes.rglob("*")}
    assert generate(shapes.parent, **SMALL) == shapes
    assert {path: path.stat().st_mtime_ns for path in shapes.rglob("*")} == before


def test_an_interrupted_set_is_completed(shapes, tmp_path):
    folder = generate(tmp_path, **SMALL)
    (folder / RECIPE).rename(folder / UNFINISHED)
    next(folder.glob("val/*/*.jpg")).unlink()
    assert contents(generate(tmp_path, **SMALL)) == contents(shapes)


def test_what_lies_there_is_left_alone(tmp_path):
    folder = generate(tmp_path / "drawn", **SMALL)
    before = contents(folder)
    with pytest.raises(DataError, match="same options"):
        generate(tmp_path / "drawn", **{**SMALL, "seed": 3})
    assert contents(folder) == before
    next(folder.glob("train/*/*.jpg")).unlink()
    with pytest.raises(DataError, match="lost some"):
        generate(tmp_path / "drawn", **SMALL)
    (tmp_path / "mine" / "shapes").mkdir(parents=True)
    (tmp_path / "mine" / "shapes" / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match="not empty"):
        generate(tmp_path / "mine", **SMALL)
    assert contents(tmp_path / "mine") == {"shapes/photo.jpg": b"mine"}


@pytest.mark.parametrize("wrong", [dict(num_classes=1), dict(ratio=0.5), dict(ratio=20.0), dict(image_size=8)])
def test_options_without_meaning_are_refused(tmp_path, wrong):
    with pytest.raises(ConfigError):
        generate(tmp_path, **{**SMALL, **wrong})
    assert not any(tmp_path.iterdir())


def test_the_command_draws_a_set_and_says_how_to_use_it(tmp_path, monkeypatch, capsys):
    given = ["--num-classes", "3", "--most", "4", "--ratio", "2", "--images-val", "1", "--image-size", "32"]
    monkeypatch.setattr(sys, "argv", ["pods_data", "synth-classes", str(tmp_path), *given])
    pods_data.main()
    recipe = json.loads((tmp_path / "shapes" / RECIPE).read_text())
    assert (recipe["num_classes"], recipe["most"], recipe["ratio"], recipe["seed"]) == (3, 4, 2.0, 0)
    assert "ImageFiles" in capsys.readouterr().out
