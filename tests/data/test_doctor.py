import json
import shutil

import pytest
from shared import shared
from tiny_dataset import annotation, categories, image, write_dataset, write_json

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
        "https://dl.fbaipublicfiles.com/LVIS/lvis_v1_train.json.zip (350 MB" in found["lvis/lvis_v1_train.json"].remedy
    )
    assert "zips/train2017.zip (18 GB)" in found["coco/train2017"].remedy
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
    assert "val2017.zip (1 GB); it unpacks to" in problem.remedy


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
    assert any("has counts for 1 classes, lvis_v1_train has 1203" in text for text in texts)


def test_train_and_test_with_different_categories_do_not_fit_one_network(tmp_path):
    (tmp_path / "val").mkdir()
    train, test = write_dataset(tmp_path), write_dataset(tmp_path / "val", name="val")
    assert problems(doctor.examine_experiment(DetectionData(train=train, test=test), ".")) == []
    write_json(tmp_path / "val" / "val.json", [image(1)], [annotation(1, 1, 3)], categories(3, 8))
    assert (
        "category ids of train.json and val.json differ"
        in only_problem(doctor.examine_experiment(DetectionData(train=train, test=test), ".")).text
    )
    write_json(tmp_path / "val" / "val.json", [image(1)], [annotation(1, 1, 3)], categories(3))
    texts = [found.text for found in problems(doctor.examine_experiment(DetectionData(train=train, test=test), "."))]
    assert "1 categories, but the network gets 2 classes" in texts


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
