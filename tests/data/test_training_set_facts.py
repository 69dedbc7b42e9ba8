"""Instances, number of images and box centres, from the shipped facts and from a small json."""

import numpy as np
import pytest
import torch
from tiny_dataset import annotation, categories, image, write_json

from cvpods_ext.config.detection import DetectionData
from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog, num_shots
from cvpods_ext.data.annotations import annotations
from cvpods_ext.errors import DataError

LVIS1, LVIS05 = DetectionData(), DetectionData(train="lvis_v0.5_train")


@pytest.fixture
def own(tmp_path):
    """Three images of 64 x 48, one of them empty; class 3 twice in the first, class 7 once in the second, a crowd."""
    entries = [
        annotation(1, 1, 3),
        annotation(2, 1, 3, bbox=[0.0, 0.0, 64.0, 48.0]),
        annotation(3, 2, 7, bbox=[32.0, 24.0, 32.0, 24.0]),
        annotation(4, 2, 3, iscrowd=1),
    ]
    path = write_json(tmp_path / "own.json", [image(1), image(2), image(3)], entries, categories(3, 7))
    return DetectionData(train=DatasetFiles(annotations=str(path), images=str(tmp_path)))


def test_lvis_needs_no_file_and_has_the_published_numbers(tmp_path):
    assert num_shots.num_images(LVIS1, tmp_path) == 100_170
    assert num_shots.num_images(LVIS05, tmp_path) == 56_740
    assert num_shots.instance_counts(LVIS1, tmp_path).double().sum() == 1_270_141
    assert num_shots.instance_counts(LVIS1, tmp_path)[44] == 50_552  # banana, id 45
    assert num_shots.instance_counts(LVIS05, tmp_path)[0] == 2  # acorn


def test_own_data_is_counted_without_crowds_and_empty_images(own, tmp_path):
    assert num_shots.instance_counts(own, tmp_path).tolist() == [2, 1]
    assert num_shots.num_images(own, tmp_path) == 2


def test_centres_are_fractions_of_the_image(own, tmp_path):
    centres, labels = num_shots.box_centres(own, tmp_path)
    assert labels.tolist() == [0, 0, 1]
    expected = torch.tensor([[20 / 64, 20 / 48], [0.5, 0.5], [0.75, 0.75]], dtype=torch.float64)
    assert torch.allclose(centres, expected)


def test_centres_need_the_json(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path))
    with pytest.raises(DataError, match="lvis_v1_train"):
        num_shots.box_centres(LVIS1, tmp_path)


def test_frequency_groups_are_those_that_the_data_set_states_else_follow_its_images(own, tmp_path):
    groups = num_shots.frequency_groups(LVIS1, tmp_path).groups.tolist()
    assert [groups.count(group) for group in "rcf"] == [337, 461, 405]
    assert num_shots.frequency_groups(own, tmp_path).groups.tolist() == ["r", "r"]


def test_all_boxes_lie_in_the_order_of_the_index(own, tmp_path):
    found = annotations.load(catalog.resolve(own.train, tmp_path))
    one_by_one = [found.instances(position).boxes for position in range(len(found))]
    np.testing.assert_array_equal(found.boxes(), np.concatenate(one_by_one))
    assert len(found.boxes()) == len(found.index.label) == 4
