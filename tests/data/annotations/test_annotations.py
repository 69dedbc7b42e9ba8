import json
import logging
import os
import pickle
import threading

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from shared import shared
from tiny_dataset import SQUARE, annotation, categories, image, write_json

from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog
from cvpods_ext.data.annotations import annotations, columns, parse
from cvpods_ext.data.annotations import cache as annotation_cache
from cvpods_ext.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("PODS_CACHE", str(folder))
    return folder


def load(path, schema="own"):
    paths = catalog.resolve(DatasetFiles(annotations=str(path), images=str(path.parent)), path.parent)
    return annotations.load(paths)


def rings_of(instances, row):
    """The json layout of one instance's polygons."""
    polygons = range(instances.instance_starts[row], instances.instance_starts[row + 1])
    starts = instances.polygon_starts
    return [instances.vertices[starts[p] : starts[p + 1]].reshape(-1) for p in polygons]


@pytest.mark.parametrize(
    "name", ["lvis_v1_train", "lvis_v1_val", "lvis_v0.5_train", "coco_2017_train", "coco_2017_val"]
)
def test_every_annotation_of_the_real_files_comes_back(name, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(shared("data/datasets")))
    paths = catalog.resolve(name, ".")
    check_against_json(annotations.load(paths), json.loads(paths.annotations.read_text()))


def test_a_real_lvis_file_of_100_images_comes_back():
    path = shared("data/lvis_v0.5_val_100.json")
    loaded = load(path)
    check_against_json(loaded, json.loads(path.read_text()))
    assert loaded.facts["federated"]
    assert loaded.facts["dropped"] == {}


def check_against_json(loaded, content):
    ids = sorted(entry["id"] for entry in content["categories"])
    label_of = {number: label for label, number in enumerate(ids)}
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    assert [category.name for category in loaded.categories] == [names[number] for number in ids]
    by_image = {}
    for entry in content["annotations"]:
        by_image.setdefault(entry["image_id"], []).append(entry)
    assert loaded.image_ids.tolist() == [entry["id"] for entry in content["images"]]
    assert len(loaded.index.label) == len(content["annotations"])
    for position, entry in enumerate(content["images"]):
        assert loaded.size(position) == (entry["height"], entry["width"])
        negative = [label_of[number] for number in entry.get("neg_category_ids", [])]
        assert loaded.negative_labels(position).tolist() == negative
        exhaustive = [label_of[number] for number in entry.get("not_exhaustive_category_ids", [])]
        assert loaded.not_exhaustive_labels(position).tolist() == exhaustive
        check_instances(loaded.instances(position), by_image.get(entry["id"], []), label_of)


def check_instances(instances, expected, label_of):
    assert instances.annotation_ids.tolist() == [entry["id"] for entry in expected]
    assert instances.labels.tolist() == [label_of[entry["category_id"]] for entry in expected]
    assert instances.areas.tolist() == [entry["area"] for entry in expected]
    assert instances.crowd.tolist() == [bool(entry.get("iscrowd")) for entry in expected]
    for row, entry in enumerate(expected):
        x, y, width, height = entry["bbox"]
        np.testing.assert_allclose(instances.boxes[row], [x, y, x + width, y + height], rtol=1e-12)
        if isinstance(entry["segmentation"], dict):
            height, width = entry["segmentation"]["size"]
            decoded = coco_mask.decode({"size": [height, width], "counts": instances.rle[row]})
            assert np.array_equal(
                decoded, coco_mask.decode(coco_mask.frPyObjects(entry["segmentation"], height, width))
            )
        else:
            assert instances.rle[row] == b""
            for found, ring in zip(rings_of(instances, row), entry["segmentation"], strict=True):
                np.testing.assert_allclose(found, ring, atol=4e-5)  # float32 up to 1024


def test_labels_follow_sorted_ids_and_annotations_may_come_before_what_they_name(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(
        json.dumps(
            {
                "annotations": [annotation(1, 8, 90), annotation(2, 3, 2), annotation(3, 8, 7)],
                "categories": categories(90, 7, 2),
                "images": [image(8), image(3)],
            }
        )
    )
    loaded = load(path)
    assert loaded.category_ids.tolist() == [2, 7, 90]
    assert loaded.instances(0).labels.tolist() == [2, 1]
    assert loaded.instances(1).labels.tolist() == [0]


NAN, INFINITE = float("nan"), float("inf")
BROKEN = {
    "not an object with a whole-number": [[], "text", {"id": 1}, annotation(1, "a", 3)],
    "image_id is not in images": [annotation(1, 99, 3)],
    "category_id is not in categories": [annotation(1, 1, 4), annotation(1, 1, 3.5), annotation(1, 1, "hat")],
    "iscrowd or ignore is neither": [annotation(1, 1, 3, iscrowd="no"), annotation(1, 1, 3, ignore=[0])],
    "box is missing": [
        annotation(1, 1, 3, bbox=None, segmentation=None),
        annotation(1, 1, 3, bbox=[1, 2, 3], segmentation=[]),
        annotation(1, 1, 3, bbox="x", segmentation=[]),
        annotation(1, 1, 3, bbox=[1, 2, None, 3], segmentation=[]),
        annotation(1, 1, 3, bbox=["a", 2, 3, 4], segmentation=[]),
    ],
    "box has a non-finite number": [
        annotation(1, 1, 3, bbox=[0, 0, NAN, 2]),
        annotation(1, 1, 3, bbox=[0, 0, INFINITE, 2]),
        annotation(1, 1, 3, bbox=[0, 0, 1e30, 2]),
        annotation(1, 1, 3, bbox=[0, 0, 10**400, 2]),
    ],
    "box has a negative side": [annotation(1, 1, 3, bbox=[5, 5, 9, -1])],
    "box has no positive width": [annotation(1, 1, 3, bbox=[5, 5, 0, 9])],
    "box lies outside": [annotation(1, 1, 3, bbox=[64, 5, 9, 9]), annotation(1, 1, 3, bbox=[-9, 5, 9, 9])],
    "segmentation is neither": [annotation(1, 1, 3, segmentation=7), annotation(1, 1, 3, segmentation="x")],
    "every polygon has fewer than 3 points": [
        annotation(1, 1, 3, segmentation=[[1, 2, 3, 4]]),
        annotation(1, 1, 3, segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
        annotation(1, 1, 3, segmentation=[3]),
    ],
    "polygon has a value that is no finite": [
        annotation(1, 1, 3, segmentation=[[1, 2, 3, 4, 5, NAN]]),
        annotation(1, 1, 3, segmentation=[[1, 2, 3, 4, 5, "six"]]),
        annotation(1, 1, 3, segmentation=[[1, 2, 3, 4, 5, 1e30]]),
        annotation(1, 1, 3, segmentation=[[1, 2, 3, 4, 5, 10**400]]),
        annotation(1, 1, 3, segmentation=[[[1, 2], [3, 4], [5, 6], [7, 8], [9, 1], [1, 1]]]),
    ],
    "RLE does not decode": [
        annotation(1, 1, 3, segmentation={"size": [48, 64], "counts": [5]}),
        annotation(1, 1, 3, segmentation={"size": [2, 2], "counts": [4]}),  # another image's
        annotation(1, 1, 3, segmentation={"size": [10**7, 10**6], "counts": [10**13]}),
        annotation(1, 1, 3, segmentation={"counts": [4]}),
    ],
    "polygon lies outside": [annotation(1, 1, 3, segmentation=[[70, 1, 80, 1, 80, 9]])],
    "polygons with an outline": [annotation(1, 1, 3, segmentation=[[0, 0, 60, 40] * 40_000])],
    "no mask although other": [annotation(1, 1, 3, segmentation=[]), annotation(1, 1, 3, segmentation=None)],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_annotation_is_counted_listed_and_left_out_of_its_sound_neighbours(kind, tmp_path, caplog):
    broken = BROKEN[kind]
    entries = [annotation(100, 1, 3), *broken, annotation(101, 1, 3, segmentation=[[1, 1, 9, 1, 9, 9]])]
    path = write_json(tmp_path / "x.json", [image(1)], entries, categories(3, 7))
    with caplog.at_level(logging.WARNING):
        loaded = load(path)
        load(path)
    [(text, count)] = loaded.facts["dropped"].items()
    assert text.startswith(kind)
    assert count == len(broken)
    assert loaded.facts["annotations"] == len(broken) + 2
    assert caplog.text.count(f"{len(broken)} x {text}") == 1
    instances = loaded.instances(0)
    assert instances.annotation_ids.tolist() == [100, 101]
    assert rings_of(instances, 0)[0].tolist() == SQUARE[0]
    assert rings_of(instances, 1)[0].tolist() == [1, 1, 9, 1, 9, 9]
    listed = loaded.dropped_list.read_text().splitlines()
    assert len(listed) == 1 + len(broken)
    assert all(text in line for line in listed[1:])


def test_broken_annotations_are_told_apart_across_flushes(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "_ROWS_IN_MEMORY", 3)
    monkeypatch.setattr(parse, "_VALUES_PER_CHECK", 7)
    monkeypatch.setattr(parse, "IMAGES_PER_BATCH", 2)
    monkeypatch.setattr(annotations, "IMAGES_PER_BATCH", 2)
    entries, sound = [], {}
    for number in range(40):
        ring = [0.0, 0.0, 9.0, 0.0, 9.0, number + 1.0]
        if number % 7 == 3:
            ring[number % 6] = float("nan")
        else:
            sound.setdefault(number % 5, []).append(number)
        entries.append(annotation(number, number % 5, 3, segmentation=[ring, [0, 0, 1, 1, 0, number]]))
    path = write_json(tmp_path / "x.json", [image(number) for number in range(5)], entries, categories(3))
    loaded = load(path)
    for position in range(5):
        instances = loaded.instances(position)
        assert instances.annotation_ids.tolist() == sound[position]
        for row, number in enumerate(sound[position]):
            assert [ring.tolist() for ring in rings_of(instances, row)] == entries[number]["segmentation"]
    assert sum(loaded.facts["dropped"].values()) == 6


def test_one_bad_polygon_among_good_ones_costs_only_itself(tmp_path):
    entry = annotation(1, 1, 3, segmentation=[[1, 2, 3, 4], SQUARE[0], []])
    loaded = load(write_json(tmp_path / "x.json", [image(1)], [entry], categories(3)))
    assert [ring.tolist() for ring in rings_of(loaded.instances(0), 0)] == SQUARE
    assert loaded.facts["noted"] == {"polygon left out of an annotation that has others": 2}


def test_boxes_without_any_mask_are_a_data_set_of_boxes(tmp_path):
    entries = [annotation(1, 1, 3, segmentation=None), annotation(2, 1, 3, segmentation=[])]
    loaded = load(write_json(tmp_path / "x.json", [image(1)], entries, categories(3)))
    assert loaded.facts["dropped"] == {}
    assert len(loaded.instances(0)) == 2


def test_broken_images_are_counted_and_their_annotations_too(tmp_path):
    images = [
        image(1), image(1), image(2, width=None), image(3, width=-5), image(4, width=1 << 20, height=1 << 20),
        image("five"), "text", image(6, width=64.5),
    ]  # fmt: skip
    entries = [annotation(1, 1, 3), annotation(2, 2, 3)]
    loaded = load(write_json(tmp_path / "x.json", images, entries, categories(3)))
    assert loaded.image_ids.tolist() == [1]
    assert loaded.facts["images_dropped"] == {
        "image listed twice, with the same file and size": 1,
        "image whose height and width are not two whole numbers of together at most 268,435,456 pixels": 4,
        "image without a whole-number id": 2,
    }
    assert loaded.facts["dropped"] == {"image_id is not in images": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": [image(1)], "annotations": []}, "has no 'categories'"),
        ({"categories": categories(1), "annotations": []}, "has no usable 'images'"),
        (
            {"categories": categories(1), "images": [image(1), image(1, file_name="b.png")]},
            "stands for two pictures.*b.png",
        ),
        ({"categories": categories(1), "images": {"1": image(1)}}, "'images' is an object, not a list"),
        ({"categories": categories(1), "images": [image("a")]}, "1 x image without a whole-number id"),
        ({"categories": [{"name": "x"}], "images": [image(1)]}, "a category needs a whole-number id and a name"),
        ({"categories": categories(4, 4), "images": [image(1)]}, "category id 4 is given twice"),
        ([annotation(1, 1, 1)], "holds a list, not images and categories"),
    ],
)
def test_a_file_that_is_no_annotation_file_says_what_it_lacks(content, message, tmp_path, cache):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as raised:
        load(path)
    assert str(path) in str(raised.value)
    assert not list(cache.glob("*.arrow"))
    assert not [entry for entry in cache.iterdir() if entry.is_dir()]


def test_a_missing_file_names_itself_and_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.json does not exist; `pods_data doctor`"):
        load(tmp_path / "nothing.json")


def test_a_truncated_file_leaves_no_cache_behind(tmp_path, cache):
    path = write_json(tmp_path / "x.json", [image(1)], [annotation(1, 1, 3)], categories(3))
    path.write_text(path.read_text()[:-40])
    with pytest.raises(DataError, match="cut off"):
        load(path)
    assert not list(cache.glob("*.arrow"))


def test_a_test_set_without_annotations_can_be_loaded(tmp_path):
    loaded = load(write_json(tmp_path / "x.json", [image(1)], [], categories(3)))
    assert len(loaded.instances(0)) == 0
    assert len(loaded.index.label) == 0


def small_file(folder):
    return write_json(folder / "x.json", [image(1)], [annotation(1, 1, 3)], categories(3))


def count_parses(monkeypatch):
    parsed = []
    original = annotation_cache.build
    monkeypatch.setattr(annotation_cache, "build", lambda *args: (parsed.append(args[0]), original(*args))[1])
    return parsed


def test_the_json_is_parsed_once_and_again_only_when_its_content_changes(tmp_path, monkeypatch):
    parsed = count_parses(monkeypatch)
    path = small_file(tmp_path)
    load(path)
    load(path)
    assert len(parsed) == 1
    os.utime(path, (1, 1))  # touched, not changed
    load(path)
    assert len(parsed) == 1
    text = path.read_text().replace("class 3", "klass 3")
    path.write_text(text)
    os.utime(path, (1, 1))  # same size, same time to the second: content decides once the time in ns differs
    os.utime(path, ns=(10**9 + 1, 10**9 + 1))
    assert load(path).categories[0].name == "klass 3"
    assert len(parsed) == 2


def test_a_copy_of_a_json_shares_its_cache(tmp_path, monkeypatch):
    parsed = count_parses(monkeypatch)
    path = small_file(tmp_path)
    load(path)
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "x.json"
    copy.write_text(path.read_text())
    load(copy)
    assert len(parsed) == 1


def test_a_damaged_key_file_costs_a_parse_not_an_error(tmp_path, cache):
    path = small_file(tmp_path)
    load(path)
    [key] = cache.glob("*.key.json")
    for damage in ("", "[]", "{}", '{"sha256": 5}'):
        key.write_text(damage)
        assert load(path).num_classes == 1


def test_a_damaged_cache_file_says_that_it_may_be_deleted(tmp_path, cache):
    path = small_file(tmp_path)
    load(path)
    [arrow] = cache.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(DataError, match="delete it, it will be made again"):
        load(path)


def test_the_cache_lies_beside_the_json_or_at_home_if_that_is_read_only(tmp_path, monkeypatch):
    monkeypatch.delenv("PODS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    path = small_file(tmp_path / "data")
    assert load(path).arrow.parent == tmp_path / "data" / ".cache"
    (tmp_path / "locked").mkdir()
    locked = small_file(tmp_path / "locked")
    (tmp_path / "locked" / ".cache").write_text("a file where the folder should be")
    assert load(locked).arrow.parent == tmp_path / "home" / ".cache" / "cvpods_ext"


def test_processes_that_start_together_parse_once(tmp_path, monkeypatch):
    parsed = count_parses(monkeypatch)
    path = small_file(tmp_path)
    threads = [threading.Thread(target=load, args=(path,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(parsed) == 1


def test_pickling_passes_on_the_path_alone(tmp_path):
    loaded = load(small_file(tmp_path))
    assert len(loaded.index.label) == 1  # cached arrays must not travel
    data = pickle.dumps(loaded)
    assert len(data) < 1000
    assert pickle.loads(data).instances(0).boxes.tolist() == [[10, 10, 30, 30]]


def test_images_are_found_by_coco_url_in_lvis_and_by_file_name_elsewhere(tmp_path, monkeypatch):
    url = "http://images.cocodataset.org/train2017/000000000009.jpg"
    images = [image(1, file_name="a/b.jpg", coco_url=url), image(2, file_name=None, coco_url=url)]
    path = write_json(tmp_path / "lvis_v1_val.json", images, [], categories(1))
    own = load(path)
    assert own.image_path(0) == tmp_path / "a" / "b.jpg"
    assert own.image_path(1) == tmp_path / "train2017" / "000000000009.jpg"
    (tmp_path / "lvis").mkdir()
    path.rename(tmp_path / "lvis" / path.name)
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path))
    known = annotations.load(catalog.resolve("lvis_v1_val", "."))
    assert known.image_path(0) == tmp_path / "coco" / "train2017" / "000000000009.jpg"


def test_a_position_past_the_end_is_an_index_error(tmp_path):
    loaded = load(small_file(tmp_path))
    for position in (-1, 1):
        with pytest.raises(IndexError):
            loaded.instances(position)


@pytest.mark.parametrize("value", ["1", 1, [None], ["a"], [2**65], {"1": 1}])
@pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
def test_a_federated_list_that_is_none_is_refused(tmp_path, key, value):
    path = write_json(tmp_path / "a.json", [image(1, **{key: value})], [annotation(1, 1, 1)], categories(1))
    with pytest.raises(DataError, match=f"{key} of an image must be a list of category ids, got"):
        load(path)
