"""What the doctor says of label maps, and label maps made from masks."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import tiny_label_maps
from PIL import Image

from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.config.segmentation import LabelMapFiles, SegmentationData
from cvpods_ext.data import segmentation, segmentation_doctor
from cvpods_ext.data.annotations import annotations as annotation_files
from cvpods_ext.data.catalog import resolve
from cvpods_ext.data.label_maps_of_masks import label_map, write_label_maps
from cvpods_ext.data.synthetic.write import generate


@pytest.fixture
def root(tmp_path):
    return tiny_label_maps.write(tmp_path / "set")


def texts(root, level, **changes):
    files = LabelMapFiles(**tiny_label_maps.files(root, **changes))
    return [finding.text for finding in segmentation_doctor.examine(files, root) if finding.level == level]


def test_a_sound_set_has_no_problem(root):
    assert texts(root, "problem") == []
    assert any("6 images with label maps, 4 classes" in text for text in texts(root, "ok"))


def test_every_fault_is_found_with_its_file(root):
    labels = root / "labels"
    Image.fromarray(np.full((40, 56), 9, np.uint8)).save(labels / "photo_000.png")
    Image.fromarray(np.zeros((41, 56), np.uint8)).save(labels / "photo_001.png")
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(labels / "photo_002.png")
    (labels / "photo_003.png").write_bytes((labels / "photo_003.png").read_bytes()[:60])
    (root / "images" / "photo_004.jpg").write_bytes(b"no image")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(labels / "extra.png")
    found = texts(root, "problem")
    for name, reason in (
        ("photo_000", "value 9"),
        ("photo_001", "56 x 41"),
        ("photo_002", "colour picture"),
        ("photo_003", "photo_003"),
        ("photo_004", "cannot be opened"),
    ):
        assert any(name in text and reason in text for text in found), (name, found)
    assert len(found) == 5
    assert any("extra" in text for text in texts(root, "note"))


def test_a_torn_image_is_found_where_images_are_decoded(root):
    path = root / "images" / "photo_001.jpg"
    path.write_bytes(path.read_bytes()[:700])
    files = LabelMapFiles(**tiny_label_maps.files(root))
    assert not [f for f in segmentation_doctor.examine(files, root) if f.level == "problem"]
    found = [f for f in segmentation_doctor.examine(files, root, decode=True) if f.level == "problem"]
    assert ["photo_001" in finding.text for finding in found] == [True]


def test_what_the_doctor_accepts_is_read_and_what_it_refuses_is_not(root):
    """The same reader: a file that raises in training is a problem here, and the other way round."""
    rng = np.random.default_rng(0)
    for i in range(6):
        values = rng.integers(0, 3 + i, (40, 56)).astype(np.uint8)
        Image.fromarray(values).save(root / "labels" / f"photo_00{i}.png")
    problems = texts(root, "problem")
    dataset = segmentation.load(LabelMapFiles(**tiny_label_maps.files(root)), root)
    for position in range(6):
        try:
            dataset.read_labels(position)
            raised = False
        except segmentation.DataError:
            raised = True
        assert raised == any(f"photo_00{position}" in text for text in problems)


def test_absent_classes_and_unlabelled_pixels_are_noted(root):
    for path in (root / "labels").glob("*.png"):
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 1, 1, 255).astype(np.uint8)).save(path)
    found = texts(root, "note")
    assert any("3 classes have no pixel" in text for text in found)
    assert any("reduce_zero_label" in text for text in found)


def test_both_sets_must_name_the_same_classes(root, tmp_path):
    other = tiny_label_maps.write(tmp_path / "other")
    (other / "classes.txt").write_text("ground\nwall\ncup\nlamp\n")
    files = [LabelMapFiles(**tiny_label_maps.files(each)) for each in (root, other)]
    found = list(segmentation_doctor.examine_experiment(SegmentationData(train=files[0], test=files[1]), root))
    assert [finding.subject for finding in found if finding.level == "problem"] == ["classes"]


def test_a_missing_folder_is_a_problem(root):
    files = dataclasses.replace(LabelMapFiles(**tiny_label_maps.files(root)), images=str(root / "nowhere"))
    (finding,) = segmentation_doctor.examine(files, root)
    assert finding.level == "problem"
    assert "nowhere" in finding.text


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    made = generate(tmp_path_factory.mktemp("box"), images_train=12, images_val=3, num_classes=6, image_size=64)
    files = DatasetFiles(annotations=str(made.train), images=str(made.root / "coco"))
    return made, annotation_files.load(resolve(files, made.root))


def test_masks_become_label_maps_the_smallest_object_in_front(synthetic):
    """Pixel by pixel from the bitmaps: of the objects that cover it the one with the fewest pixels."""
    from cvpods_ext.data.detection_dataset import read_targets

    _, annotations = synthetic
    overlaps = 0
    for position in range(len(annotations)):
        size, targets = annotations.size(position), read_targets(annotations, position)
        bitmaps = targets.masks.to_bitmasks(size).bitmaps.numpy()
        found = label_map(annotations, position, background=True)
        areas = bitmaps.sum(axis=(1, 2))
        for y, x in np.ndindex(size):
            covering = np.flatnonzero(bitmaps[:, y, x])
            overlaps += len(covering) > 1
            if not len(covering):
                assert found[y, x] == 0
            else:
                smallest = covering[areas[covering] == areas[covering].min()]
                assert found[y, x] - 1 in targets.labels[smallest].tolist()
        without = label_map(annotations, position, background=False)
        assert np.array_equal(without, np.where(found == 0, 255, found - np.uint8(1)))


def test_the_written_folder_is_a_data_set(synthetic, tmp_path):
    made, annotations = synthetic
    files = write_label_maps(annotations, tmp_path / "maps")
    assert files.images == str(made.root / "coco" / "train2017")
    found = list(segmentation_doctor.examine(files, tmp_path))
    assert [finding for finding in found if finding.level == "problem"] == []
    classes = (tmp_path / "maps" / "classes.txt").read_text().split()
    assert classes[0] == "background"
    assert len(classes) == 7


def test_the_command_writes_them(synthetic, tmp_path):
    made, _ = synthetic
    command = [sys.executable, "-m", "cvpods_ext.cli.data", "label-maps", str(made.val), "--images"]
    done = subprocess.run(
        [*command, str(made.root / "coco"), "--out", str(tmp_path / "maps")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "3 label maps" in done.stdout
    assert len(list((tmp_path / "maps").rglob("*.png"))) == len(json.loads(made.val.read_text())["images"])
