"""Folders of images and label maps: listed, read, refused with a message, counted."""

import numpy as np
import pytest
import tiny_label_maps
import torch
from PIL import Image
from shared import shared

from cvpods_ext.config.segmentation import LabelMapFiles, SegmentationData
from cvpods_ext.data import segmentation, segmentation_statistics
from cvpods_ext.data.segmentation_source import SegmentationImages
from cvpods_ext.errors import ConfigError, DataError


@pytest.fixture
def root(tmp_path):
    return tiny_label_maps.write(tmp_path / "set")


def load(root, **changes):
    return segmentation.load(LabelMapFiles(**tiny_label_maps.files(root, **changes)), root)


def test_images_are_paired_with_the_png_of_their_name_in_sorted_order(root):
    (root / "images" / "street").mkdir()
    (root / "labels" / "street").mkdir()
    (root / "images" / "photo_001.jpg").rename(root / "images" / "street" / "b.jpeg")
    (root / "labels" / "photo_001.png").rename(root / "labels" / "street" / "b.png")
    dataset = load(root)
    assert dataset.files[:2] == ["photo_000.jpg", "photo_002.jpg"]
    assert dataset.files[-1] == "street/b.jpeg"
    assert dataset.label_path(5) == root / "labels" / "street" / "b.png"
    assert dataset.image_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert [each.name for each in dataset.classes] == list(tiny_label_maps.CLASSES)
    assert dataset.size(0) == (40, 56)


def test_values_are_shifted_where_zero_means_unlabelled(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 1, 150, 255]], np.uint8)).save(path)
    assert segmentation.read_labels(path, 150, True).tolist() == [[255, 0, 149, 255]]
    Image.fromarray(np.array([[0, 1, 149, 255]], np.uint8)).save(path)
    assert segmentation.read_labels(path, 150, False).tolist() == [[0, 1, 149, 255]]


def test_the_shift_equals_the_record(tmp_path):
    """Of all values that a label map of 255 classes may hold; the reference lets 254 through as unlabelled too."""
    recorded = np.load(shared("golden/upernet_tiny/pipeline.npz"))["reduce_zero_label_of_0_to_255"]
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(256, dtype=np.uint8)[None]).save(path)
    assert segmentation.read_labels(path, 255, True)[0].tolist() == recorded.tolist()


@pytest.mark.parametrize("mode", ["P", "L", "I;16", "1"])
def test_palette_gray_and_16_bit_files_hold_the_same_labels(tmp_path, mode):
    values = np.array([[0, 1], [1, 0]], np.uint8)
    picture = Image.fromarray(values)
    if mode == "P":
        picture = Image.fromarray(values, mode="P")
        picture.putpalette([255, 0, 0, 0, 255, 0] + [0] * 762)
    elif mode == "I;16":
        picture = Image.fromarray(values.astype(np.uint16))
    elif mode == "1":
        picture = Image.fromarray(values.astype(bool))
    picture.save(tmp_path / "a.png")
    assert segmentation.read_labels(tmp_path / "a.png", 2, False).tolist() == values.tolist()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 2, 3), 7, np.uint8), "colour picture"),
        (np.array([[0, 4], [9, 9]], np.uint8), "3 pixels of the value 4, 9, but the 4 classes have the values 0 to 3"),
        (np.array([[0, 256]], np.uint16), "value 256"),
    ],
)
def test_what_is_no_label_map_is_refused(tmp_path, values, message):
    Image.fromarray(values).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=message):
        segmentation.read_labels(tmp_path / "a.png", 4, False)


@pytest.mark.parametrize("content", [b"", b"%!PS-Adobe", b"\x89PNG\r\n\x1a\n", None])
def test_broken_files_are_a_message(root, content):
    path = root / "labels" / "photo_000.png"
    path.write_bytes(path.read_bytes()[:100] if content is None else content)
    with pytest.raises(DataError, match=r"photo_000\.png"):
        load(root).read_labels(0)


def test_missing_label_maps_are_named(root):
    for i in (1, 3):
        (root / "labels" / f"photo_00{i}.png").unlink()
    with pytest.raises(DataError, match=r"2 of 6 images .* photo_001\.png, photo_003\.png"):
        load(root)


def test_two_images_may_not_share_a_label_map(root):
    Image.new("RGB", (56, 40)).save(root / "images" / "photo_000.png")
    with pytest.raises(DataError, match="share one label map"):
        load(root)


def test_missing_folders_say_what_to_do(root):
    with pytest.raises(DataError, match="LabelMapFiles in config"):
        segmentation.load(LabelMapFiles(images="/nowhere", annotations="/nowhere", classes="/x.txt"), root)
    (root / "datasets").mkdir()
    with pytest.raises(DataError, match="ADEChallengeData2016"):
        segmentation.load("ade20k_val", root)
    with pytest.raises(ConfigError, match="ade20k_train"):
        segmentation.load("ade", root)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "cat\ndog\ncat\n", "'cat' twice"),
        ("a.txt", "\n", "0 classes"),
        ("a.txt", "\n".join(map(str, range(256))), "256 classes"),
        ("a.csv", "value,name\n1,cat\n3,dog\n", "without gaps"),
        ("a.csv", "id,name\n1,cat\n", "columns value and name"),
        ("a.csv", "value,name\none,cat\n", "numbers where they belong"),
    ],
)
def test_wrong_class_lists_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        segmentation.read_classes(tmp_path / name)


def test_the_shipped_classes_of_ade20k(tmp_path):
    classes = segmentation.read_classes("ade20k.csv")
    assert len(classes) == 150
    assert classes[0] == segmentation.PixelClass("wall", 0.1576, 11664)
    assert classes[7].name == "bed"
    assert segmentation.num_classes(SegmentationData(), tmp_path) == 150
    groups = segmentation_statistics.frequency_groups(SegmentationData(), tmp_path, 0.0005, 0.005)
    assert [int((groups == group).sum()) for group in "rcf"] == [29, 93, 28]


def test_ade20k_is_found_in_its_own_layout(tmp_path):
    base = tmp_path / "datasets" / "ADEChallengeData2016"
    tiny_label_maps.write(tmp_path / "made", images=2, first=1)
    for kind, made in (("images", "images"), ("annotations", "labels")):
        (base / kind).mkdir(parents=True)
        (tmp_path / "made" / made).rename(base / kind / "validation")
    dataset = segmentation.load("ade20k_val", tmp_path)
    assert len(dataset) == 2
    assert dataset.read_labels(0)[0, 0] == 255
    assert dataset.read_labels(0).min() == 0


def test_pixels_are_counted_once_and_again_after_a_change(root):
    dataset = load(root)
    pairs = segmentation_statistics.pairs(dataset)
    dense = np.stack([np.bincount(dataset.read_labels(i).ravel(), minlength=256)[:4] for i in range(6)])
    assert pairs.counts("instance").tolist() == dense.sum(axis=0).tolist()
    assert pairs.counts("image").tolist() == (dense > 0).sum(axis=0).tolist()
    some = segmentation_statistics.pairs(dataset, np.array([1, 4]))
    assert some.num_images == 2
    assert some.counts("instance").tolist() == dense[[1, 4]].sum(axis=0).tolist()
    Image.fromarray(np.zeros((40, 56), np.uint8)).save(root / "labels" / "photo_000.png")
    changed = segmentation_statistics.pairs(load(root)).counts("instance")
    assert changed[0] == dense[1:, 0].sum() + 40 * 56


def test_frequency_groups_of_own_data_follow_the_training_pixels(root):
    files = LabelMapFiles(**tiny_label_maps.files(root))
    data = SegmentationData(train=files, test=files)
    counts = segmentation_statistics.pixel_counts(data, root)
    limit = np.sort(counts)[1:3].mean() / counts.sum()
    groups = segmentation_statistics.frequency_groups(data, root, limit, 0.5)
    assert (groups == "r").sum() == 2
    assert groups[0] == "f"  # the ground


def test_a_class_without_pixels_cannot_be_weighted(root):
    (root / "classes.txt").write_text("\n".join([*tiny_label_maps.CLASSES, "unicorn"]))
    files = LabelMapFiles(**tiny_label_maps.files(root))
    with pytest.raises(DataError, match="unicorn"):
        segmentation_statistics.pixel_counts(SegmentationData(train=files), root)


def test_samples_hold_image_and_labels_of_one_size(root):
    source = SegmentationImages(load(root), "RGB")
    image, target = source.training_sample(2, np.random.default_rng(0))
    assert image.shape == (3, 40, 56)
    assert target.labels.shape == (40, 56)
    assert target.image_id == 3
    assert target.labels[0, 0] == 255
    tested, nothing = source.test_sample(2)
    assert torch.equal(tested, image)
    assert nothing.original_size == (40, 56)
    assert nothing.labels.numel() == 0
    mirrored, _ = SegmentationImages(load(root), "BGR").test_sample(2)
    assert torch.equal(mirrored, image.flip(0))


def test_an_image_of_another_size_than_its_labels_is_refused(root):
    Image.new("RGB", (55, 40)).save(root / "images" / "photo_000.jpg")
    with pytest.raises(DataError, match="55 x 40"):
        SegmentationImages(load(root), "RGB").test_sample(0)
