"""Faults of annotation files that people make, by the commands that they would type: doctor, train, test."""

import gzip
import json
import sys

import pytest
from own_data import OwnData, encoded

from cvpods_ext.cli import data as pods_data
from cvpods_ext.cli import test as pods_test
from cvpods_ext.cli import train as pods_train
from cvpods_ext.evaluation.results import Results

MARK = b"\xef\xbb\xbf"


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    return OwnData(tmp_path)


def run(monkeypatch, capsys, command, *arguments):
    """Exit status, and what was printed and logged with its spaces made single."""
    monkeypatch.setattr(sys, "argv", [command.__name__, *map(str, arguments)])
    status = 0
    try:
        command.main()
    except SystemExit as stopped:
        status = stopped.code or 0
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return status, " ".join((printed.out + printed.err).split())


def doctor(monkeypatch, capsys, *more):
    return run(monkeypatch, capsys, pods_data, "doctor", "--dir", "exp", *more)


def evaluated(own, monkeypatch, capsys, *more):
    status, said = run(monkeypatch, capsys, pods_test, "--dir", "exp", "--detections", "res.json", *more)
    path = own.folder / "exp" / "outputs" / "imported" / "res" / "results.json"
    return status, said, Results.read(path) if status == 0 else None


def each(document, **values):
    """Set these keys of every annotation; a function gets the annotation."""
    for one in document["annotations"]:
        one.update({key: value(one) if callable(value) else value for key, value in values.items()})


@pytest.mark.parametrize(
    "changes",
    [
        {"area": "N/A"},
        {"area": []},
        {"area": {}},
        {"area": -3.0},
        {"area": 1e400},
        {"iscrowd": "0"},
        {"iscrowd": "false"},
        {"iscrowd": None},
        {"iscrowd": 0.0},
        {"bbox": None},
        {"bbox": []},
        {"bbox": lambda one: list(map(str, one["bbox"]))},
        {"segmentation": lambda one: one["segmentation"][0]},
        {"segmentation": lambda one: [list(map(str, one["segmentation"][0]))]},
        {"segmentation": lambda one: [*one["segmentation"], []]},
        {"segmentation": lambda one: [*one["segmentation"], [1.0, 2.0]]},
        {"image_id": lambda one: str(one["image_id"])},
        {"category_id": lambda one: float(one["category_id"])},
    ],
    ids=str,
)
def test_what_can_be_read_or_derived_costs_no_object(changes, own, monkeypatch, capsys):
    each(own.val, **changes)
    each(own.train, **changes)
    own.write()
    status, said, results = evaluated(own, monkeypatch, capsys)
    assert status == 0, said
    assert results.metrics["bbox"]["AP"] == pytest.approx(100)
    assert results.metrics["segm"]["AP"] == pytest.approx(100)
    status, said = doctor(monkeypatch, capsys)
    assert status == 0, said
    assert "4 images, 12 annotations, 3 categories" in said


@pytest.mark.parametrize("counts", [None, "12", -1, [], "many", 2.5])
def test_counts_of_a_file_that_are_none_are_taken_from_training(counts, own, monkeypatch, capsys):
    for one in own.val["categories"]:
        one["image_count"] = counts
    own.write()
    status, said, results = evaluated(own, monkeypatch, capsys)
    assert status == 0, said
    assert results.metrics["bbox"]["APr"] == pytest.approx(100)  # 4 training images of every class
    assert "training images per class in train.json" in said


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], "two corners"),
        (lambda x, y, w, h: [x / 96, y / 72, w / 96, h / 72], "fractions"),
        (lambda x, y, w, h: [x + w / 2, y + h / 2, w, h], "contradict their polygons"),
        (lambda x, y, w, h: [y, x, h, w], "contradict their polygons"),
    ],
    ids=["corners", "fractions", "centres", "rows first"],
)
def test_boxes_of_another_form_are_a_problem_for_the_doctor(boxes, words, own, monkeypatch, capsys):
    each(own.train, bbox=lambda one: boxes(*one["bbox"]))
    own.write()
    status, said = doctor(monkeypatch, capsys)
    assert status == 1
    assert words in said


@pytest.mark.parametrize("spoilt", ["train and val", "results", "compressed", "utf-16"])
def test_a_byte_order_mark_is_read_over(spoilt, own, monkeypatch, capsys):
    if spoilt == "train and val":
        own.train, own.val = MARK + encoded(own.train), MARK + encoded(own.val)
    elif spoilt == "results":
        own.results = MARK + encoded(own.results)
    elif spoilt == "compressed":
        own.val = gzip.compress(MARK + encoded(own.val))
    else:
        own.val = json.dumps(own.val).encode("utf-16")
    own.write()
    status, said, results = evaluated(own, monkeypatch, capsys)
    if spoilt == "utf-16":
        assert status == 2
        assert "val.json" in said
        assert "UTF-8" in said
    else:
        assert results.metrics["segm"]["AP"] == pytest.approx(100), said


@pytest.mark.parametrize("how", ["named .gz", "under a plain name", "cut off", "twice"])
def test_a_compressed_json_is_read_or_refused_by_name(how, own, monkeypatch, capsys):
    packed = gzip.compress(encoded(own.val))
    own.val = {"cut off": packed[:-40], "twice": gzip.compress(packed)}.get(how, packed)
    if how == "named .gz":
        own.files["val"] = "val.json.gz"
    own.write()
    status, said, results = evaluated(own, monkeypatch, capsys)
    if how in ("cut off", "twice"):
        assert status == 2
        assert "val.json" in said
    else:
        assert results.metrics["bbox"]["AP"] == pytest.approx(100), said


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (("bolt", "apple", "cup"), (1, 2, 3)),
        (("apple", "bolt", "cup"), (1, 2, 4)),
        (("apple", "bolt", "mug"), (1, 2, 3)),
        (("apple", "bolt"), (1, 2)),
    ],
    ids=["swapped", "another id", "another name", "one less"],
)
def test_categories_that_differ_are_told_before_training_and_refused_in_a_test(names, ids, own, monkeypatch, capsys):
    own.val["categories"] = [{"id": k, "name": name} for k, name in zip(ids, names, strict=True)]
    known = set(ids)
    own.val["annotations"] = [one for one in own.val["annotations"] if one["category_id"] in known]
    own.results = [one for one in own.results if one["category_id"] in known]
    own.write()
    status, said = doctor(monkeypatch, capsys)
    assert status == 1
    assert "categories of training and test differ" in said
    status, said = run(monkeypatch, capsys, pods_train, "--dir", "exp", "--num-gpus", "0")
    assert status == 0
    assert "what is trained now cannot be tested" in said
    status, said = run(monkeypatch, capsys, pods_test, "--dir", "exp", "--num-gpus", "0")
    assert status == 2
    assert "training set 3" in said


@pytest.mark.parametrize("twin", [1, 1.0, "1"])
@pytest.mark.parametrize("which", ["train", "val"])
def test_one_id_for_two_pictures_is_refused_before_anything(twin, which, own, monkeypatch, capsys):
    document = getattr(own, which)
    document["images"][1]["id"] = twin if which == "train" else document["images"][0]["id"]
    own.write()
    assert doctor(monkeypatch, capsys)[0] == 1
    if which == "train":
        status, said = run(monkeypatch, capsys, pods_train, "--dir", "exp", "--num-gpus", "0")
    else:
        status, said, _ = evaluated(own, monkeypatch, capsys)
    assert status == 2
    assert "stands for two pictures" in said
    assert not (own.folder / "exp" / "outputs" / "model_final.pth").exists()


@pytest.mark.parametrize(
    "segmentation", [[], [[]], [[float("nan")] * 6], {"size": [72, 96], "counts": [5, 7]}, 7], ids=str
)
def test_a_test_object_without_a_usable_mask_is_exempt_and_said_to_be(segmentation, own, monkeypatch, capsys, caplog):
    own.val["annotations"][0]["segmentation"] = segmentation
    own.write()
    with caplog.at_level("INFO"):
        status, said, results = evaluated(own, monkeypatch, capsys)
    assert status == 0, said
    assert results.metrics["segm"]["AP"] == pytest.approx(100)
    assert "1 object not held against the masks" in said + caplog.text
    assert any("mask" in str(key) or "mask" in str(value) for key, value in results.settings.items())


@pytest.mark.parametrize("far", [350_000_000.0, -350_000_000.0, 1e30, float("inf")])
def test_a_vertex_far_outside_takes_no_memory(far, own, monkeypatch, capsys):
    for document in (own.train, own.val):
        document["annotations"][0]["segmentation"][0][2] = far
    own.write()
    status, said = doctor(monkeypatch, capsys)
    assert "train.json" in said
    status, said, results = evaluated(own, monkeypatch, capsys)
    assert status == 0, said
    assert results.metrics["bbox"]["AP"] == pytest.approx(100)


@pytest.mark.parametrize("name", ["sub\\{}", ".\\sub\\{}", "sub/{}", ".\\{}"])
def test_backslashes_in_names_are_slashes(name, own, monkeypatch, capsys):
    own.write()
    images = own.folder / "datasets" / "images"
    if "sub" in name:
        (images / "sub").mkdir()
        for path in images.glob("t*.png"):
            path.rename(images / "sub" / path.name)
    for one in own.train["images"]:
        one["file_name"] = name.format(one["file_name"])
    (own.folder / "datasets" / "train.json").write_bytes(encoded(own.train))
    status, said = doctor(monkeypatch, capsys, "--decode")
    assert status == 0, said


@pytest.mark.parametrize("name", ["..\\{}", "C:\\photos\\{}", "/etc/{}", "a\0{}"])
def test_names_that_leave_the_folder_are_a_problem(name, own, monkeypatch, capsys):
    for one in own.train["images"]:
        one["file_name"] = name.format(one["file_name"])
    own.write()
    status, said = doctor(monkeypatch, capsys)
    assert status == 1, said
    status, said = run(monkeypatch, capsys, pods_train, "--dir", "exp", "--num-gpus", "0")
    assert status == 2, said


@pytest.mark.parametrize("empty", ["no annotation", "crowds only", "other images"])
def test_images_that_show_nothing_are_counted(empty, own, monkeypatch, capsys):
    first = [one for one in own.train["annotations"] if one["image_id"] <= 2]
    if empty == "no annotation":
        own.train["annotations"] = [one for one in own.train["annotations"] if one not in first]
    for one in first if empty == "crowds only" else ():
        one["iscrowd"] = 1
    if empty == "other images":
        own.train["annotations"] = [one | {"image_id": 3 + k % 2} for k, one in enumerate(own.train["annotations"])]
    own.write()
    status, said = doctor(monkeypatch, capsys)
    assert status == 0, said
    assert "2 of 4 images have no annotation" in said


@pytest.mark.parametrize("annotations", [None, [], "absent", {}])
def test_a_test_set_without_annotations_has_no_metrics_and_says_why(annotations, own, monkeypatch, capsys, caplog):
    own.val["annotations"] = annotations
    if annotations == "absent":
        del own.val["annotations"]
    own.write()
    with caplog.at_level("INFO"):
        status, said, results = evaluated(own, monkeypatch, capsys)
    if annotations == {}:
        assert status == 2
        assert "val.json" in said
        return
    assert status == 0, said
    assert results.metrics["bbox"]["AP"] is None
    assert "has no annotations, so every metric is n/a" in said + caplog.text
