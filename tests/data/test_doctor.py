import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shared import shared
from tiny_dataset import annotation, categories, image, write_dataset, write_json, write_photo

from cvpods_ext.config.detection import DetectionData
from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog, doctor


@pytest.fixture(autouse=True)
def roots(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path))


def problems(findings):
    return [finding for finding in findings if finding.level == "problem"]


def only_problem(findings):
    [problem] = problems(findings)
    return problem


@pytest.mark.parametrize("name", ["lvis_v1_train", "lvis_v0.5_val", "coco_2017_train"])
def test_a_complete_data_set_has_no_problem(name, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(shared("data/datasets")))
    findings = list(doctor.examine(name, "."))
    assert problems(findings) == []
    assert any("images that belong in" in finding.text for finding in findings if finding.level == "ok")


def test_an_empty_root_lists_every_file_with_its_address(tmp_path):
    found = {finding.subject: finding for finding in doctor.examine("lvis_v1_train", ".")}
    assert found["lvis/lvis_v1_train.json"].level == "problem"
    assert (
        "https://dl.fbaipublicfiles.com/LVIS/lvis_v1_train.json.zip (350.3 MB, 1.1 GB unpacked"
        in found["lvis/lvis_v1_train.json"].remedy
    )
    assert "zips/train2017.zip (19.3 GB)" in found["coco/train2017"].remedy
    assert found["lvis/num_shots_v1.0.json"].level == "note"
    assert "num_shots_v1.0.json" in found["lvis/num_shots_v1.0.json"].remedy


def test_without_a_root_the_addresses_are_listed_all_the_same(tmp_path, monkeypatch):
    monkeypatch.delenv("PODS_DATASETS")
    findings = list(doctor.examine("coco_2017_val", tmp_path))
    assert findings[0].level == "problem"
    assert {finding.subject for finding in findings[1:]} == {
        download.unpacks_to for download in catalog.known("coco_2017_val").downloads
    }


def test_missing_images_are_counted_with_examples(tmp_path):
    files = write_dataset(tmp_path)
    (tmp_path / "2.png").unlink()
    (tmp_path / "5.png").unlink()
    problem = only_problem(doctor.examine(files, "."))
    assert problem.text.startswith(f"2 of 6 images are not in {tmp_path}: 2.png, 5.png")


def test_missing_coco_photos_name_the_archive(tmp_path):
    shutil.copytree(shared("data/datasets/lvis"), tmp_path / "lvis")
    (tmp_path / "coco" / "train2017").mkdir(parents=True)
    (tmp_path / "coco" / "val2017").mkdir()
    problem = only_problem(doctor.examine("lvis_v1_train", "."))
    assert "32 of 32 images are not in" in problem.text
    assert "val2017.zip (815.6 MB); it unpacks to" in problem.remedy


def test_broken_annotations_and_images_are_reported(tmp_path):
    files = write_dataset(tmp_path, images=1)
    entries = [annotation(1, 1, 3), annotation(1, 1, 3, bbox=[1, 1, 0, 5]), annotation(3, 9, 3)]
    write_json(tmp_path / "train.json", [image(1), image(1)], entries, categories(3))
    findings = list(doctor.examine(files, "."))
    texts = {finding.text for finding in problems(findings)}
    assert texts == {
        "1 x image listed twice, with the same file and size",
        "1 x image_id is not in images",
        "1 x box has no positive width and height",
    }
    assert any("1 x annotation id given twice" in finding.text for finding in findings if finding.level == "note")
    assert any("dropped.csv" in finding.remedy for finding in findings)


def test_an_unreadable_json_is_a_problem_not_a_crash(tmp_path):
    (tmp_path / "x.json").write_text('{"images": [')
    problem = only_problem(doctor.examine(DatasetFiles(annotations="x.json", images="."), "."))
    assert "cut off" in problem.text


def test_another_file_under_a_known_name_is_noticed(tmp_path):
    for folder in ("lvis", "coco/train2017", "coco/val2017"):
        (tmp_path / folder).mkdir(parents=True)
    write_json(tmp_path / "lvis" / "lvis_v1_train.json", [image(1)], [annotation(1, 1, 3)], categories(3))
    (tmp_path / "lvis" / "num_shots_v1.0.json").write_text(json.dumps([1, 2]))
    texts = [problem.text for problem in problems(doctor.examine("lvis_v1_train", "."))]
    assert "1 categories, lvis_v1_train has 1203" in texts
    assert any(
        "has counts for 1 classes, but the training set has 1 categories" in text or "which are not the" in text
        for text in texts
    )


def test_train_and_test_with_different_categories_do_not_fit_one_network(tmp_path):
    (tmp_path / "val").mkdir()
    train, test = write_dataset(tmp_path), write_dataset(tmp_path / "val", name="val")
    assert problems(doctor.examine_experiment(DetectionData(train=train, test=test), ".")) == []
    write_json(tmp_path / "val" / "val.json", [image(1)], [annotation(1, 1, 3)], categories(3, 8))
    texts = [found.text for found in problems(doctor.examine_experiment(DetectionData(train=train, test=test), "."))]
    assert any("1 of the training set are absent here: 'class 7' (id 7)" in text for text in texts)
    assert any("1 here are unknown in the training set: 'class 8' (id 8)" in text for text in texts)


def test_names_that_are_swapped_between_the_splits_are_seen(tmp_path):
    (tmp_path / "val").mkdir()
    train, test = write_dataset(tmp_path), write_dataset(tmp_path / "val", name="val")
    content = json.loads(Path(test.annotations).read_text())
    first, second = content["categories"]
    first["name"], second["name"] = second["name"], first["name"]
    Path(test.annotations).write_text(json.dumps(content))
    problem = only_problem(doctor.examine_experiment(DetectionData(train=train, test=test), "."))
    assert "id 3 is 'class 3' in training and 'class 7' here" in problem.text


def test_class_counts_of_a_wrong_length_are_a_problem(tmp_path):
    files = write_dataset(tmp_path)
    (tmp_path / "shots.json").write_text("[3, 5]")
    problem = only_problem(
        doctor.examine_experiment(DetectionData(train=files, test=files, num_shots="shots.json"), ".")
    )
    assert "has counts for 1 classes" in problem.text


def test_decoding_finds_truncated_files_and_other_sizes(tmp_path):
    files = write_dataset(tmp_path, images=4)
    assert problems(doctor.examine_pixels(files, ".")) == []
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:500])
    shutil.copy(tmp_path / "4.png", tmp_path / "3.png")
    texts = [problem.text for problem in problems(doctor.examine_pixels(files, "."))]
    assert len(texts) == 2
    assert "1.png cannot be decoded" in texts[0]
    assert "3.png is 48 x 64 pixels" in texts[1]


def rewrite(files, change):
    """Change every annotation of a data set."""
    content = json.loads(Path(files.annotations).read_text())
    for entry in content["annotations"]:
        change(entry)
    Path(files.annotations).write_text(json.dumps(content))


def as_corners(entry):
    x, y, width, height = entry["bbox"]
    entry["bbox"] = [x, y, x + width, y + height]


def as_fractions(entry):
    entry["bbox"] = [side / 64 for side in entry["bbox"]]


def elsewhere(entry):
    entry["bbox"] = [0, 0, 12, 12]


def without_polygons(change):
    def both(entry):
        change(entry)
        del entry["segmentation"]

    return both


@pytest.mark.parametrize(
    ("change", "text", "remedy"),
    [
        (as_corners, "12 of these agree as corners", "Write x1, y1, x2 - x1, y2 - y1"),
        (without_polygons(lambda a: a.update(bbox=[20, 20, 44, 44])), "they look like two corners", "are they x1, y1"),
        (as_fractions, "are they fractions of the image", "multiply x and width by"),
        (without_polygons(as_fractions), "are they fractions of the image", "multiply x and width by"),
        (elsewhere, "12 boxes contradict their polygons", "derived from the polygons"),
        (lambda a: a.update(iscrowd=1), "every one of the 12 annotations is a crowd", "set it to 0"),
        (lambda a: a.update(iscrowd="1"), "every one of the 12 annotations is a crowd", "set it to 0"),
    ],
)
def test_what_a_person_would_see_is_found(change, text, remedy, tmp_path):
    files = write_dataset(tmp_path)
    rewrite(files, change)
    problem = only_problem(doctor.examine(files, "."))
    assert text in problem.text
    assert remedy in problem.remedy


def test_sound_boxes_are_not_suspected(tmp_path):
    files = write_dataset(tmp_path)
    rewrite(files, lambda a: a.update(bbox=[10, 10, 20, 18]))  # loose, not wrong
    assert problems(doctor.examine(files, ".")) == []


@pytest.mark.parametrize(
    ("name", "on_disk", "remedy"),
    [
        ("Photo.PNG", "photo.png", "capitals or the Unicode form"),
        ("cafe\u0301.png", "caf\u00e9.png", "capitals or the Unicode form"),
        ("photo.jpg", "photo.png", "only in their endings"),
    ],
)
def test_files_that_are_called_a_little_differently_are_pointed_out(name, on_disk, remedy, tmp_path):
    write_photo(tmp_path / on_disk)
    entries = [image(1, file_name=name)]
    write_json(tmp_path / "x.json", entries, [annotation(1, 1, 3)], categories(3))
    problem = only_problem(doctor.examine(DatasetFiles(annotations="x.json", images="."), "."))
    assert remedy in problem.remedy


def test_backslashes_are_read_as_slashes_and_names_may_not_leave_the_folder(tmp_path):
    (tmp_path / "images" / "sub").mkdir(parents=True)
    write_photo(tmp_path / "images" / "sub" / "1.png")
    write_photo(tmp_path / "2.png")
    write_json(tmp_path / "x.json", [image(1, file_name="sub\\1.png")], [annotation(1, 1, 3)], categories(3))
    files = DatasetFiles(annotations="x.json", images="images")
    assert problems(doctor.examine(files, ".")) == []
    for name in ("../2.png", str(tmp_path / "2.png"), "sub/../../2.png", "..\\2.png", "C:\\2.png"):
        write_json(tmp_path / "x.json", [image(1, file_name=name)], [annotation(1, 1, 3)], categories(3))
        assert "leads out of the image folder" in only_problem(doctor.examine(files, ".")).text
    write_json(tmp_path / "x.json", [image(1, file_name="../2.png")], [annotation(1, 1, 3)], categories(3))
    allowed = DatasetFiles(annotations="x.json", images="images", names_may_leave=True)
    assert problems(doctor.examine(allowed, ".")) == []


def test_images_without_objects_are_counted(tmp_path):
    files = write_dataset(tmp_path, images=4)
    content = json.loads(Path(files.annotations).read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] < 3]
    Path(files.annotations).write_text(json.dumps(content))
    findings = list(doctor.examine(files, "."))
    assert problems(findings) == []
    [note] = [found for found in findings if "left out of training" in found.text]
    assert note.text.startswith("2 of 4 images")
    assert "train_on_empty_images" in note.remedy


def test_twelve_bits_in_files_of_sixteen_are_seen_when_decoding(tmp_path):
    files = write_dataset(tmp_path, images=2)
    values = np.random.default_rng(0).integers(0, 4096, (48, 64)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "1.png")
    problem = only_problem(doctor.examine_pixels(files, "."))
    assert "1.png has 16 bits a pixel of which 12 are used" in problem.text
    Image.fromarray((values * 16).astype(np.uint16)).save(tmp_path / "1.png")
    assert problems(doctor.examine_pixels(files, ".")) == []


def test_repeat_factors_that_repeat_nothing_name_a_threshold_that_would(tmp_path):
    files = write_dataset(tmp_path)
    data = DetectionData(train=files, test=files, sampler="repeat_factor")
    [note] = [found for found in doctor.examine_experiment(data, ".") if found.subject == "sampler"]
    assert "repeats no image at data.repeat_threshold=0.001" in note.text
    assert "A threshold of 4 would" in note.text  # every class is in every image


def test_several_training_files_are_examined_together(tmp_path):
    (tmp_path / "b").mkdir()
    first, second = write_dataset(tmp_path), write_dataset(tmp_path / "b", images=2)
    data = DetectionData(train=(first, second), test=first)
    findings = list(doctor.examine_experiment(data, "."))
    assert problems(findings) == []
    assert any("2 files joined by name: 8 images, 2 categories" in found.text for found in findings)
