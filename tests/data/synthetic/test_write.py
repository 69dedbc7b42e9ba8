"""The synthetic set: reproducible, well-formed LVIS, honest masks, and a long tail whose classes can be told apart."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from PIL import Image

from cvpods_ext.data.synthetic.classes import MAX_CLASSES, choose_codes, vocabulary_size
from cvpods_ext.data.synthetic.plan import frequency_groups, frequency_thresholds, image_counts, plan_images
from cvpods_ext.data.synthetic.write import SyntheticOptions, generate
from cvpods_ext.errors import ConfigError, DataError

SMALL = dict(images_train=120, images_val=40, num_classes=24, image_size=96, seed=3)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("box"), **SMALL)


@pytest.fixture(scope="module")
def train(box):
    return json.loads(box.train.read_text())


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_same_options_give_the_same_bytes_with_any_number_of_processes(box, tmp_path):
    again = generate(tmp_path, **SMALL, workers=2)
    assert contents(again.root) == contents(box.root)


def test_another_seed_gives_other_images(box, tmp_path):
    other = generate(tmp_path, **{**SMALL, "seed": 4})
    assert (
        contents(other.root)["coco/train2017/000000000001.jpg"] != contents(box.root)["coco/train2017/000000000001.jpg"]
    )


def test_a_finished_set_is_not_drawn_again(box):
    before = {path: path.stat().st_mtime_ns for path in box.root.rglob("*.jpg")}
    assert generate(box.root, **SMALL) == box
    assert {path: path.stat().st_mtime_ns for path in box.root.rglob("*.jpg")} == before


def test_a_root_with_other_content_is_left_alone(box, tmp_path):
    with pytest.raises(DataError, match="same options"):
        generate(box.root, **{**SMALL, "num_classes": 10})
    photo = tmp_path / "coco" / "train2017" / "000000000009.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"a real photo")
    with pytest.raises(DataError, match=r"000000000009\.jpg does not belong"):
        generate(tmp_path, **SMALL)
    assert photo.read_bytes() == b"a real photo"


def test_a_lost_image_is_reported(tmp_path):
    files = generate(tmp_path, images_train=6, images_val=2, num_classes=3)
    (tmp_path / "coco" / "train2017" / "000000000002.jpg").unlink()
    with pytest.raises(DataError, match="lost some of its files"):
        generate(tmp_path, images_train=6, images_val=2, num_classes=3)
    assert files.train.exists()


def test_an_interrupted_generation_goes_on_with_the_same_options_only(tmp_path, monkeypatch):
    options = dict(images_train=6, images_val=2, num_classes=3)
    with monkeypatch.context() as patch:
        patch.setattr(
            "cvpods_ext.data.synthetic.write._categories", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path, **options)
    assert not (tmp_path / "lvis" / "lvis_box_train.json").exists()
    with pytest.raises(DataError, match="mixed with it"):
        generate(tmp_path, **{**options, "seed": 5})
    assert generate(tmp_path, **options).train.exists()
    assert not (tmp_path / "coco" / ".synthetic-unfinished").exists()


def test_every_image_opens_at_its_stated_size_and_is_found_by_its_url(box, train):
    for image in train["images"]:
        path = box.root / "coco" / "/".join(image["coco_url"].split("/")[-2:])
        with Image.open(path) as picture:
            assert picture.size == (image["width"], image["height"])
            assert max(picture.size) == SMALL["image_size"]


def test_ids_are_unique_over_both_splits_and_annotation_ids_start_at_one(box, train):
    val = json.loads(box.val.read_text())
    ids = [image["id"] for document in (train, val) for image in document["images"]]
    assert len(set(ids)) == len(ids) == SMALL["images_train"] + SMALL["images_val"]
    assert [a["id"] for a in train["annotations"]] == list(range(1, len(train["annotations"]) + 1))
    assert val["categories"] == train["categories"]


def test_categories_are_sorted_and_count_the_training_annotations(box, train):
    names = [row["name"] for row in train["categories"]]
    assert names == sorted(names)
    assert [row["id"] for row in train["categories"]] == list(range(1, SMALL["num_classes"] + 1))
    images = defaultdict(set)
    for annotation in train["annotations"]:
        images[annotation["category_id"]].add(annotation["image_id"])
    instances = Counter(annotation["category_id"] for annotation in train["annotations"])
    thresholds = train["info"]["frequency_thresholds"]
    for row in train["categories"]:
        assert row["image_count"] == len(images[row["id"]]) >= 1
        assert row["instance_count"] == instances[row["id"]]
        rare, common = (
            row["image_count"] <= thresholds["rare_max_images"],
            (row["image_count"] <= thresholds["common_max_images"]),
        )
        assert row["frequency"] == ("r" if rare else "c" if common else "f")
    flat = json.loads(box.num_shots.read_text())
    assert flat[0::2] == [row["id"] for row in train["categories"]]
    assert flat[1::2] == [row["image_count"] for row in train["categories"]]


def test_federated_label_sets_do_not_contradict_the_annotations(train):
    present = defaultdict(set)
    for annotation in train["annotations"]:
        present[annotation["image_id"]].add(annotation["category_id"])
    for image in train["images"]:
        assert not set(image["neg_category_ids"]) & present[image["id"]]
        assert set(image["not_exhaustive_category_ids"]) <= present[image["id"]]
    share = np.mean([bool(image["not_exhaustive_category_ids"]) for image in train["images"]])
    assert 0.03 < share < 0.25  # 0.12 expected of 120 images
    assert 7 < np.mean([len(image["neg_category_ids"]) for image in train["images"]]) < 12


def test_boxes_and_areas_follow_from_polygons_inside_the_image(train):
    size = {image["id"]: (image["height"], image["width"]) for image in train["images"]}
    for annotation in train["annotations"]:
        height, width = size[annotation["image_id"]]
        points = np.concatenate([np.array(ring).reshape(-1, 2) for ring in annotation["segmentation"]])
        x, y, w, h = annotation["bbox"]
        np.testing.assert_allclose([x, y, x + w, y + h], [*points.min(0), *points.max(0)], atol=0.011)
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height
        assert min(w, h) > 4
        assert annotation["area"] > 0
        rle = coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], height, width))
        # the COCO rasteriser adds up to half a pixel along the outline
        assert abs(float(coco_mask.area(rle)) - annotation["area"]) < 0.6 * (w + h) + 4


def test_masks_are_what_is_visible_so_they_hardly_overlap(train):
    by_image = defaultdict(list)
    for annotation in train["annotations"]:
        by_image[annotation["image_id"]].append(annotation["segmentation"])
    size = {image["id"]: (image["height"], image["width"]) for image in train["images"]}
    shared = total = 0
    for image_id, segmentations in by_image.items():
        drawn = [coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(s, *size[image_id]))) for s in segmentations]
        stacked = np.sum(drawn, axis=0)
        shared += int((stacked > 1).sum())
        total += int((stacked > 0).sum())
    assert shared / total < 0.03  # neighbours share outline pixels, nothing more


def test_a_class_looks_like_its_name(tmp_path):
    """Mean colours under the masks: the nearest named colour is the class's own for plain textures."""
    files = generate(tmp_path, images_train=40, images_val=1, num_classes=12, difficulty=0.0, seed=1)
    document = json.loads(files.train.read_text())
    reference = {"red": (206, 38, 42), "blue": (34, 84, 200), "yellow": (238, 206, 36)}
    names = {row["id"]: row["name"].split("_") for row in document["categories"]}
    urls = {image["id"]: image["coco_url"] for image in document["images"]}
    right = checked = 0
    for annotation in document["annotations"]:
        texture, colour, _ = names[annotation["category_id"]]
        if texture != "plain" or colour not in reference:
            continue
        pixels = np.asarray(Image.open(tmp_path / "coco" / "/".join(urls[annotation["image_id"]].split("/")[-2:])))
        mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(annotation["segmentation"], *pixels.shape[:2])))
        mean = pixels[mask.astype(bool)].mean(axis=0)
        nearest = min(reference, key=lambda name: np.linalg.norm(mean - reference[name]))
        right += nearest == colour
        checked += 1
    assert checked > 10
    assert right == checked


def test_validation_is_flatter_than_training(box, train):
    val = json.loads(box.val.read_text())
    counts = Counter(annotation["category_id"] for annotation in val["annotations"])
    rare = [row["id"] for row in train["categories"] if row["frequency"] == "r"]
    assert rare
    assert all(counts[identity] >= 2 for identity in rare)


def test_image_counts_have_the_quantiles_of_lvis_v1():
    counts = image_counts(1203, 100_170, limit=20, spread=2.162, minimum=1)
    assert counts.sum() == pytest.approx(360_952, rel=0.02)
    # LVIS v1: 5/25/50/75/95 % are 1, 9, 37, 221, 1876; a log-normal with a cap comes near, not equal
    five, quarter, median, three, most = np.quantile(counts, [0.05, 0.25, 0.5, 0.75, 0.95])
    assert 1 <= five <= 3
    assert 6 <= quarter <= 16
    assert 30 <= median <= 70
    assert 150 <= three <= 330
    assert 1500 <= most <= 2200
    groups = Counter(frequency_groups(counts, frequency_thresholds(counts)))
    assert groups["r"] == pytest.approx(337, abs=30)
    assert groups["c"] == pytest.approx(461, abs=40)


def test_no_spread_makes_all_classes_equally_frequent():
    assert len(set(image_counts(30, 500, limit=6, spread=0.0, minimum=1).tolist())) == 1


def test_the_minimum_holds_for_every_class():
    assert image_counts(40, 1000, limit=6, spread=2.162, minimum=5).min() == 5


def test_plans_keep_the_counts_and_the_histogram_of_classes_per_image():
    rng = np.random.default_rng(0)
    counts = image_counts(200, 3000, limit=20, spread=2.162, minimum=1)
    plans = plan_images(rng, counts, np.arange(200) % 8, 3000, np.full(3000, 100))
    seen = np.bincount(np.concatenate([plan.labels for plan in plans]), minlength=200)
    np.testing.assert_array_equal(seen, counts)
    sizes = np.bincount([len(plan.labels) for plan in plans], minlength=9)[1:9] / 3000
    np.testing.assert_allclose(sizes, [0.219, 0.198, 0.161, 0.132, 0.101, 0.072, 0.048, 0.029], atol=0.03)
    instances = np.concatenate([plan.instances for plan in plans])
    assert (instances == 1).mean() == pytest.approx(0.5, abs=0.02)
    assert instances.mean() == pytest.approx(3.27, abs=0.12)


def test_frequent_classes_show_every_attribute_of_the_rare_ones():
    codes = choose_codes(60, np.random.default_rng(0))
    assert len({code.name for code in codes}) == 60
    frequent, rare = codes[:20], codes[40:]
    for attribute in ("shape", "colour", "texture"):
        assert {getattr(code, attribute) for code in rare} <= {getattr(code, attribute) for code in frequent}


def test_the_vocabulary_reaches_lvis_and_ends_with_a_message():
    assert np.prod(vocabulary_size(1203)) >= 1203
    assert MAX_CLASSES >= 1230  # LVIS v0.5
    with pytest.raises(ConfigError, match=f"1 to {MAX_CLASSES}"):
        vocabulary_size(MAX_CLASSES + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(images_val=0), "at least one"),
        (dict(image_size=20), "no room"),
        (dict(difficulty=1.5), r"\[0, 1\]"),
        (dict(spread=-1.0), "not negative"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        SyntheticOptions(**options)
