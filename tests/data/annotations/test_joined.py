import hashlib
import pickle

import numpy as np
import pytest
from tiny_dataset import annotation, image, write_json

from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog, statistics
from cvpods_ext.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))


def named(**ids):
    return [{"id": number, "name": name} for name, number in ids.items()]


def write(folder, name, annotations, categories, images=(1, 2)):
    (folder / name).mkdir()
    path = write_json(folder / name / f"{name}.json", [image(number) for number in images], annotations, categories)
    return DatasetFiles(annotations=str(path), images=str(path.parent))


@pytest.fixture
def both(tmp_path):
    """apple is id 1 in a and id 7 in b; cup is in b only; image ids 1 and 2 are in both."""
    a = write(tmp_path, "a", [annotation(1, 1, 1), annotation(2, 2, 2)], named(apple=1, bolt=2))
    b_entries = [annotation(1, 1, 7), annotation(2, 1, 9, iscrowd=1), annotation(3, 2, 9)]
    b = write(tmp_path, "b", b_entries, named(apple=7, cup=9))
    return catalog.load((a, b), tmp_path)


def test_categories_are_joined_by_name_and_labels_follow(both):
    assert [(each.id, each.name) for each in both.categories] == [(1, "apple"), (2, "bolt"), (9, "cup")]
    assert both.num_classes == 3
    assert both.category_ids.tolist() == [1, 2, 9]
    assert [both.instances(position).labels.tolist() for position in range(4)] == [[0], [1], [0, 2], [2]]
    assert both.index.image.tolist() == [0, 1, 2, 2, 3]
    assert both.index.label.tolist() == [0, 1, 0, 2, 2]
    assert statistics.count_classes(both).tolist() == [2, 1, 1]


def test_image_ids_are_kept_apart_and_each_file_has_its_own_folder(both, tmp_path):
    assert len(both) == 4
    assert both.image_ids.tolist() == [1, 2, 3, 4]
    assert both.image_path(1) == tmp_path / "a" / "2.png"
    assert both.image_path(2) == tmp_path / "b" / "1.png"
    assert both.size(3) == (48, 64)
    with pytest.raises(IndexError):
        both.instances(4)


def test_what_is_dropped_is_counted_over_all_files(tmp_path):
    broken = annotation(1, 1, 1, bbox=[1, 1, 0, 5])
    parts = (write(tmp_path, name, [broken, annotation(2, 1, 1)], named(apple=1)) for name in "ab")
    joined = catalog.load(tuple(parts), tmp_path)
    assert joined.dropped == {"box has no positive width and height": 2}
    assert joined.facts["annotations"] == 4
    assert len(joined.boxes()) == len(joined.index.label) == 2


def test_workers_get_the_paths_alone(both):
    assert len(both.index.label) == 5
    data = pickle.dumps(both)
    assert len(data) < 3000
    np.testing.assert_array_equal(pickle.loads(data).index.label, both.index.label)


def test_a_new_name_under_a_taken_id_is_refused(tmp_path):
    a = write(tmp_path, "a", [], named(apple=1))
    b = write(tmp_path, "b", [], named(apple=2, cup=1))
    with pytest.raises(DataError, match=r"category id 1 is 'cup', but in an earlier training file 'apple'"):
        catalog.load((a, b), tmp_path)


def test_a_name_given_twice_in_a_file_is_refused(tmp_path):
    a = write(tmp_path, "a", [], [{"id": 1, "name": "apple"}, {"id": 2, "name": "apple"}])
    with pytest.raises(DataError, match="two categories have one name"):
        catalog.load((a, a), tmp_path)


def test_no_file_at_all_is_a_mistake_in_the_config(tmp_path):
    with pytest.raises(ConfigError, match="empty tuple"):
        catalog.load((), tmp_path)


def test_the_digest_changes_with_the_content_of_any_file(tmp_path):
    parts = [write(tmp_path, name, [annotation(1, number, 1)], named(apple=1)) for number, name in ((1, "a"), (2, "c"))]
    alone, both = catalog.load(parts[0], tmp_path).sha256, catalog.load(tuple(parts), tmp_path).sha256
    assert alone == hashlib.sha256((tmp_path / "a" / "a.json").read_bytes()).hexdigest()
    assert len({alone, both, catalog.load(tuple(parts[::-1]), tmp_path).sha256}) == 3
    write_json(tmp_path / "c" / "c.json", [image(1), image(2)], [annotation(1, 2, 1, iscrowd=1)], named(apple=1))
    assert catalog.load(tuple(parts), tmp_path).sha256 != both
