"""What reports are told about a test set: its annotations, and groups by the training set."""

import pytest
from tiny_dataset import annotation, categories, image, write_json

from cvpods_ext.config import DatasetFiles, DetectionConfig, override
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.evaluation.detection.protocol import GROUPS
from cvpods_ext.evaluation.detection.report_data import open_data


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))


def experiment(folder, train_images):
    """Class 3 is in every training image, class 7 in one; both are in one image of the test set."""
    entries = [annotation(k, k, 3) for k in range(1, train_images + 1)] + [annotation(100, 1, 7)]
    train = write_json(folder / "train.json", [image(k) for k in range(1, train_images + 1)], entries, categories(3, 7))
    val = write_json(folder / "val.json", [image(1)], [annotation(1, 1, 3), annotation(2, 1, 7)], categories(3, 7))
    data = {
        split: DatasetFiles(annotations=str(path), images=str(folder))
        for split, path in (("train", train), ("test", val))
    }
    return Experiment(folder, override(DetectionConfig(), data={**data, "frequency_limits": (1, 4)}))


def test_groups_of_own_data_are_those_of_the_training_set(tmp_path):
    found = open_data(experiment(tmp_path, train_images=5), masks=False)
    assert [GROUPS[group] for group in found.gt.frequency] == ["f", "r"]
    assert found.gt.notes["frequency"].endswith("train.json: rare <= 1 < common <= 4 < frequent")


def test_without_the_training_set_they_are_those_of_the_test_set_and_that_is_said(tmp_path, caplog):
    made = experiment(tmp_path, train_images=5)
    (tmp_path / "train.json").unlink()
    found = open_data(made, masks=False)
    assert [GROUPS[group] for group in found.gt.frequency] == ["r", "r"]
    assert "image counts of val.json itself: rare <= 10 < common <= 100 < frequent" in found.gt.notes["frequency"]
    assert "the training set cannot be read" in caplog.text
