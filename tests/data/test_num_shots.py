import json
import logging

import numpy as np
import pytest
from shared import shared
from tiny_dataset import annotation, categories, image, write_dataset, write_json

from cvpods_ext.config.detection import DetectionData
from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import category_tables, num_shots
from cvpods_ext.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "file", "table"),
    [
        ("lvis_v1_train", "num_shots_v1.0.json", "lvis_v1_train"),
        ("lvis_v0.5_train", "num_shots_v0.5.npy", "lvis_v0.5_train"),
    ],
)
def test_the_published_file_is_used_if_it_is_there_else_the_shipped_table(name, file, table, monkeypatch, caplog):
    data = DetectionData(train=name)
    expected = [category.image_count for category in category_tables.load(table)]
    with caplog.at_level(logging.INFO):
        assert num_shots.class_counts(data, ".").tolist() == expected
    assert f"shipped table {table}" in caplog.text
    monkeypatch.setenv("PODS_DATASETS", str(shared("data/datasets")))
    with caplog.at_level(logging.INFO):
        counts = num_shots.class_counts(data, ".")
    assert file in caplog.text
    assert counts.tolist() == expected
    assert counts.is_floating_point()


def test_without_any_data_root_the_shipped_table_still_serves(monkeypatch, tmp_path):
    monkeypatch.delenv("PODS_DATASETS")
    assert len(num_shots.class_counts(DetectionData(train="lvis_v1_train"), tmp_path)) == 1203


def test_own_data_is_counted_from_its_json(tmp_path):
    data = DetectionData(train=write_dataset(tmp_path, images=4))
    assert num_shots.class_counts(data, tmp_path).tolist() == [4, 4]


def test_a_file_of_another_length_names_both(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps([1, 5, 2, 6, 3, 7]))
    with pytest.raises(DataError, match=r"mine\.json has counts for 3 classes, which are not the 1203 categories"):
        num_shots.class_counts(DetectionData(num_shots="mine.json"), tmp_path)


def test_classes_without_samples_are_named(tmp_path):
    path = write_json(tmp_path / "x.json", [image(1)], [annotation(1, 1, 3)], categories(3, 5, 9))
    data = DetectionData(train=DatasetFiles(annotations=str(path), images=str(tmp_path)))
    with pytest.raises(DataError, match=r"2 of 3 classes have no training sample \(class 5, class 9\)"):
        num_shots.class_counts(data, tmp_path)


def test_a_named_file_that_is_absent_says_how_to_make_it(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.num_shots=no\.json: .* `pods_data num-shots`"):
        num_shots.class_counts(DetectionData(num_shots="no.json"), tmp_path)


@pytest.mark.parametrize("suffix", ["json", "npy"])
def test_both_formats_are_read_as_written(tmp_path, suffix):
    path = tmp_path / f"counts.{suffix}"
    num_shots.write(path, np.array([5, 0, 7]), np.array([2, 4, 9]), {"count": "images per class"})
    assert num_shots.read_num_shots(path, [2, 4, 9]).tolist() == [5, 0, 7]
    assert json.loads((tmp_path / f"counts.{suffix}.origin.json").read_text()) == {"count": "images per class"}


def test_the_json_is_a_flat_list_of_ids_and_counts(tmp_path):
    num_shots.write(tmp_path / "x.json", np.array([5, 0]), np.array([2, 4]), {})
    assert json.loads((tmp_path / "x.json").read_text()) == [2, 5, 4, 0]


@pytest.mark.parametrize("text", ["{}", "[1, 2, 3]", "[[1, 2]]", '["a", 1]', "[1.5, 2]", "no json", ""])
def test_other_json_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json"):
        num_shots.read_num_shots(tmp_path / "x.json", [1])


def test_counts_of_other_categories_or_of_another_number_are_not_taken_by_position(tmp_path):
    (tmp_path / "x.json").write_text("[9, 7, 2, 5, 4, 6]")
    assert num_shots.read_num_shots(tmp_path / "x.json", [2, 4, 9]).tolist() == [5, 6, 7]  # by id, in any order
    for ids in ([2, 4, 8], [2, 4], [1, 2, 4, 9]):
        with pytest.raises(DataError, match="which are not the"):
            num_shots.read_num_shots(tmp_path / "x.json", ids)
    (tmp_path / "x.json").write_text("[2, 7, 2, 5, 4, 6]")
    with pytest.raises(DataError, match="which are not the"):
        num_shots.read_num_shots(tmp_path / "x.json", [2, 4])
    np.save(tmp_path / "x.npy", np.array([5, 6]))
    with pytest.raises(DataError, match=r"counts for 2 classes, but the training set has 3 categories"):
        num_shots.read_num_shots(tmp_path / "x.npy", [1, 2, 3])


def test_frequency_groups_of_own_data_follow_its_training_images_and_the_limits_of_the_config(tmp_path):
    entries = [annotation(1, 1, 3), annotation(2, 1, 7), annotation(3, 2, 7)]
    path = write_json(tmp_path / "x.json", [image(1), image(2)], entries, categories(3, 7))
    files = DatasetFiles(annotations=str(path), images=str(tmp_path))
    found = num_shots.frequency_groups(DetectionData(train=files, frequency_limits=(1, 2)), tmp_path)
    assert found.groups.tolist() == ["r", "c"]
    assert found.origin == "training images per class in x.json: rare <= 1 < common <= 2 < frequent"
    with pytest.raises(ConfigError, match="frequency_limits"):
        num_shots.frequency_groups(DetectionData(train=files, frequency_limits=(5, 2)), tmp_path)


def test_a_pickle_in_an_npy_is_never_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    np.save(tmp_path / "x.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="is not a num_shots file"):
        num_shots.read_num_shots(tmp_path / "x.npy", [1, 2])
    assert not (tmp_path / "executed").exists()


def test_an_npy_of_another_shape_or_type_is_refused(tmp_path):
    for values in (np.ones((2, 2), np.int64), np.ones(3)):
        np.save(tmp_path / "x.npy", values)
        with pytest.raises(DataError, match="one-dimensional array of whole numbers"):
            num_shots.read_num_shots(tmp_path / "x.npy", [1, 2])


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ends in \.npy or \.json"):
        num_shots.write(tmp_path / "x.txt", np.array([1]), np.array([1]), {})
