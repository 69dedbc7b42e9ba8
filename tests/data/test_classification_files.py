"""Data sets for classification: folders, lists, names, and what is wrong with them."""

from pathlib import Path

import numpy as np
import pytest
import tiny_classes
import torch
from PIL import Image

from cvpods_ext.config.classification import ClassificationData, ClassificationTest, ImageFiles
from cvpods_ext.data import class_lists, classification, classification_doctor, classification_statistics
from cvpods_ext.data.classification_source import source
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.structures.classification import UNKNOWN


def folders(root, **changes) -> ClassificationData:
    """Training and test set are the folders below `root`."""
    files = ImageFiles(images=str(root))
    return ClassificationData(**{"train": files, "test": files, "image_side": 32, **changes})


@pytest.fixture
def root(tmp_path):
    return tiny_classes.write(tmp_path / "photos")


def test_folders_are_classes_in_the_order_of_their_names(root):
    (root / ".cache").mkdir()
    (root / "bee" / "deeper").mkdir()
    (root / "bee" / "photo_000.jpg").rename(root / "bee" / "deeper" / "photo_x.JPG")
    (root / "bee" / "notes.txt").write_text("no image")
    data = folders(root)
    loaded = classification.load(data, data.train, root)
    assert [each.name for each in loaded.classes] == ["ant", "bee", "cat", "dog"]
    assert loaded.counts().tolist() == [12, 6, 3, 2]
    assert "bee/deeper/photo_x.JPG" in loaded.files
    assert all(Path(loaded.image_path(i)).is_file() for i in range(len(loaded)))


def test_a_list_gives_the_images_and_labels_of_the_folders(root, tmp_path):
    listed = tiny_classes.write_list(tmp_path / "train.txt", root)
    data = folders(root)
    by_list = ImageFiles(images=str(root), annotations=str(listed))
    theirs = classification.load(data, data.train, root)
    ours = classification.load(folders(root, train=by_list), by_list, root)
    assert list(ours.files) == list(theirs.files)
    assert np.array_equal(ours.labels, theirs.labels)
    assert [each.key for each in ours.classes] == ["0", "1", "2", "3"]


def test_names_with_spaces_and_tabs_before_the_label_are_read(root, tmp_path):
    (root / "ant" / "photo_000.jpg").rename(root / "ant" / "a b.jpg")
    listed = tmp_path / "train.txt"
    listed.write_text("ant/a b.jpg 0\nbee/photo_000.jpg\t1\n\n")
    files = ImageFiles(images=str(root), annotations=str(listed))
    loaded = classification.load(folders(root, train=files), files, root)
    assert (list(loaded.files), loaded.labels.tolist()) == (["ant/a b.jpg", "bee/photo_000.jpg"], [0, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ant/photo_000.jpg\n", "line 1"),
        ("ant/photo_000.jpg 0\nant/photo_001.jpg -1\n", "line 2"),
        ("ant/photo_000.jpg 1.5\n", "line 1"),
        ("ant/photo_000.jpg ²\n", "line 1"),
        ("../elsewhere.jpg 0\n", "names_may_leave"),
        ("/etc/passwd 0\n", "names_may_leave"),
        ("ant/absent.jpg 0\n", "first file"),
        ("ant/photo_000.jpg 99999999999999999999\n", "line 1"),
        ("", "names no file"),
        ("\x00\n", "line 1"),
    ],
)
def test_a_bad_line_of_a_list_is_named(root, tmp_path, text, message):
    listed = tmp_path / "train.txt"
    listed.write_text(text)
    files = ImageFiles(images=str(root), annotations=str(listed))
    with pytest.raises(DataError, match=message):
        classification.load(folders(root, train=files), files, root)


def test_a_huge_label_reserves_no_memory(root, tmp_path):
    listed = tmp_path / "train.txt"
    listed.write_text("ant/photo_000.jpg 999999999\n")
    files = ImageFiles(images=str(root), annotations=str(listed))
    with pytest.raises(DataError, match="more than"):
        classification.load(folders(root, train=files), files, root)


def test_a_test_set_may_lack_classes_but_not_add_any(root, tmp_path):
    fewer = tiny_classes.write(tmp_path / "fewer", (2, 2))
    data = folders(root, test=ImageFiles(images=str(fewer)))
    assert classification.load(data, data.test, root).counts().tolist() == [2, 2, 0, 0]
    (fewer / "elk").mkdir()
    with pytest.raises(DataError, match="elk"):
        classification.load(data, data.test, root)


def test_a_file_of_classes_orders_and_names_them(root, tmp_path):
    table = tmp_path / "classes.txt"
    table.write_text("dog\tdomestic dog\nbee\nant\ncat\n")
    files = ImageFiles(images=str(root), classes=str(table))
    loaded = classification.load(folders(root, train=files), files, root)
    assert [each.name for each in loaded.classes] == ["domestic dog", "bee", "ant", "cat"]
    assert loaded.counts().tolist() == [2, 6, 12, 3]
    table.write_text("dog\nbee\ndog\n")
    with pytest.raises(DataError, match="twice"):
        class_lists.read(table)


def test_imagenet_is_named_by_timm_and_needs_no_images(tmp_path):
    from timm.data import ImageNetInfo

    found = classification.classes(ClassificationData(), tmp_path)
    theirs = ImageNetInfo()
    assert [each.name for each in found] == [theirs.index_to_description(i) for i in range(1000)]
    assert [each.key for each in found] == theirs.label_names()


def test_imagenets_validation_images_may_lie_flat_beside_a_list(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path))
    (tmp_path / "imagenet" / "val").mkdir(parents=True)
    (tmp_path / "imagenet" / "meta").mkdir()
    data = ClassificationData()
    with pytest.raises(DataError, match=r"meta/val\.txt"):
        classification.load(data, "imagenet_val", tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "imagenet" / "val" / "ILSVRC2012_val_00000001.JPEG")
    (tmp_path / "imagenet" / "meta" / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\n")
    assert classification.load(data, "imagenet_val", tmp_path).labels.tolist() == [65]


def test_an_unknown_or_absent_set_says_what_to_write(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_DATASETS", str(tmp_path))
    with pytest.raises(ConfigError, match="did you mean 'imagenet_val'"):
        classification.load(ClassificationData(test="imagenet_vall"), "imagenet_vall", tmp_path)
    with pytest.raises(DataError, match=r"image-net\.org"):
        classification.load(ClassificationData(), "imagenet_val", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="each is to be a class"):
        classification.load(folders(tmp_path / "empty"), ImageFiles(images="empty"), tmp_path)


def test_groups_follow_the_training_counts_and_their_limits(root):
    groups = classification_statistics.frequency_groups(
        folders(root), ClassificationTest(many_above=6, few_below=3), root
    )
    assert groups.groups.tolist() == ["many", "medium", "medium", "few"]
    assert groups.origin == "training images per class in photos: few < 3 <= medium <= 6 < many"


def test_counts_of_a_num_shots_file_replace_those_of_the_folders(root, tmp_path):
    path = tmp_path / "shots.json"
    path.write_text("[0, 7, 1, 5, 2, 3, 3, 1]")
    data = folders(root, num_shots=str(path))
    assert classification_statistics.class_counts(data, root).tolist() == [7, 5, 3, 1]
    path.write_text("[0, 7, 1, 5, 2, 3, 3, 0]")
    with pytest.raises(DataError, match="no training image"):
        classification_statistics.class_counts(data, root)


def test_pairs_of_some_positions_count_only_those(root):
    loaded = classification.load(folders(root), ImageFiles(images=str(root)), root)
    found = classification_statistics.pairs(loaded, np.array([0, 1, 20, 22]))
    assert found.counts("image").tolist() == [2, 0, 1, 1]


def test_samples_are_of_one_size_and_a_test_knows_no_class(root):
    data = folders(root, auto_augment="rand-m9-mstd0.5-inc1")
    samples = source(classification.load(data, data.train, root), data)
    image, target = samples.training_sample(13, np.random.default_rng(0))
    again, _ = samples.training_sample(13, np.random.default_rng(0))
    assert image.dtype == torch.uint8
    assert image.shape == (3, 32, 32)
    assert torch.equal(image, again)
    assert (target.label, target.image_id, target.original_size) == (1, 14, (40, 56))
    image, target = samples.test_sample(13)
    assert (image.shape, target.label) == ((3, 32, 32), UNKNOWN)


def test_bgr_networks_get_bgr_and_exif_is_obeyed(root):
    photo = Image.fromarray(np.dstack([np.full((40, 20), value, np.uint8) for value in (200, 100, 0)]))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    photo.save(root / "ant" / "photo_000.jpg", quality=100, exif=exif)
    data = folders(root, channels="BGR", test_resize="squash")
    image, target = source(classification.load(data, data.train, root), data).test_sample(0)
    assert target.original_size == (20, 40)
    assert [round(float(image[k].float().mean()), -1) for k in range(3)] == [0, 100, 200]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (33, 32)])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_images_of_any_ratio_fit(root, size, resize):
    Image.new("RGB", size, (9, 9, 9)).save(root / "ant" / "photo_000.jpg")
    data = folders(root, test_resize=resize, crop_ratio=0.9)
    samples = source(classification.load(data, data.train, root), data)
    assert samples.test_sample(0)[0].shape == (3, 32, 32)
    assert samples.training_sample(0, np.random.default_rng(1))[0].shape == (3, 32, 32)


def test_digests_change_with_labels_names_and_files(root):
    data = folders(root)
    first = classification.load(data, data.train, root).sha256()
    assert first == classification.load(data, data.train, root).sha256()
    (root / "ant" / "photo_000.jpg").rename(root / "ant" / "other.jpg")
    second = classification.load(data, data.train, root).sha256()
    (root / "ant" / "other.jpg").rename(root / "bee" / "other.jpg")
    third = classification.load(data, data.train, root).sha256()
    assert len({first, second, third}) == 3


def test_a_file_of_two_classes_is_refused_and_one_named_twice_is_not(root, tmp_path):
    listed = tmp_path / "list.txt"
    files = ImageFiles(images=str(root), annotations=str(listed))
    data = ClassificationData(train=files, test=files)
    listed.write_text("ant/photo_000.jpg 0\nbee/photo_000.jpg 1\nant/photo_000.jpg 0\n")
    assert classification.load(data, files, tmp_path).labels.tolist() == [0, 1, 0]
    listed.write_text("ant/photo_000.jpg 0\nbee/photo_000.jpg 1\nant/photo_000.jpg 1\n")
    with pytest.raises(DataError, match=r"line 3: 'ant/photo_000.jpg' has the label 1, and 0 on a line before"):
        classification.load(data, files, tmp_path)


def two_lists(root, tmp_path, own: str, trained: str = "ant\nbee\ncat\ndog\n"):
    """A training list with classes in the order of `trained`, and a test list whose own are `own`."""
    (tmp_path / "train.classes").write_text(trained)
    (tmp_path / "test.classes").write_text(own)
    (tmp_path / "train.txt").write_text("ant/photo_000.jpg 0\nbee/photo_000.jpg 1\n")
    (tmp_path / "test.txt").write_text("ant/photo_001.jpg 1\nbee/photo_001.jpg 0\n")
    train, test = (
        ImageFiles(images=str(root), annotations=str(tmp_path / f"{split}.txt"), classes=classes)
        for split, classes in (
            ("train", str(tmp_path / "train.classes") if trained else ""),
            ("test", str(tmp_path / "test.classes")),
        )
    )
    return ClassificationData(train=train, test=test)


def test_a_test_list_is_matched_by_the_names_of_its_own_classes(root, tmp_path):
    data = two_lists(root, tmp_path, own="bee\nant\nelk\n")  # no image is an elk
    assert classification.load(data, data.test, tmp_path).labels.tolist() == [0, 1]
    assert classification.load(data, data.train, tmp_path).labels.tolist() == [0, 1]


@pytest.mark.parametrize(("own", "trained"), [("bee\nelk\n", "ant\nbee\n"), ("bee\nant\n", "")])
def test_classes_of_a_test_list_that_the_training_set_lacks_are_named(root, tmp_path, own, trained):
    data = two_lists(root, tmp_path, own, trained)
    with pytest.raises(DataError, match=r"test.txt has images of . classes that the training set does not have: '"):
        classification.load(data, data.test, tmp_path)
    assert any("does not have" in one.text for one in classification_doctor.examine_experiment(data, tmp_path))


def test_a_label_beyond_the_classes_of_its_own_list_is_refused(root, tmp_path):
    data = two_lists(root, tmp_path, own="bee\n")
    with pytest.raises(DataError, match="label 1, but there are 1 classes"):
        classification.load(data, data.test, tmp_path)


def test_names_of_one_file_are_one_file_however_they_are_written(root, tmp_path):
    listed = tmp_path / "list.txt"
    files = ImageFiles(images=str(root), annotations=str(listed))
    data = ClassificationData(train=files, test=files)
    listed.write_text("ant/photo_000.jpg 0\n./ant//photo_000.jpg 1\n")
    with pytest.raises(DataError, match="has the label 1, and 0 on a line before"):
        classification.load(data, files, tmp_path)
    listed.write_text("ant/photo_000.jpg 0\n./ant/photo_000.jpg 0\nbee/photo_000.jpg 1\n")
    assert classification.load(data, files, tmp_path).listed_again() == 1
    assert any("1 entries name a file" in one.text for one in classification_doctor.examine_experiment(data, tmp_path))
