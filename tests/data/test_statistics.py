import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from shared import shared
from tiny_dataset import annotation, categories, image, write_json

from cvpods_ext.config.schema import DatasetFiles
from cvpods_ext.data import catalog, category_tables, statistics
from cvpods_ext.data.annotations import annotations
from cvpods_ext.data.statistics import Pairs

IMAGES = {"lvis_v1_train": 100_170, "lvis_v0.5_train": 56_740}


def table_counts(table):
    rows = category_tables.load(table)
    return tuple(np.array([getattr(row, name) for row in rows]) for name in ("image_count", "instance_count"))


@pytest.mark.parametrize(
    ("table", "category_id", "images", "instances", "rfs", "irfs"),
    [
        ("lvis_v1_train", 45, 1787, 50552, 1, 1),
        ("lvis_v1_train", 8, 22, 25, 2.1338, 3.8999),
        ("lvis_v1_train", 13, 4, 7, 5.0042, 8.2103),
        ("lvis_v1_train", 1203, 81, 798, 1.1121, 1.1845),
        ("lvis_v0.5_train", 1, 2, 2, 5.3263, 9.9607),
        ("lvis_v0.5_train", 45, 947, 26148, 1, 1),
    ],
)
def test_repeat_factors_of_lvis_classes(table, category_id, images, instances, rfs, irfs):
    image_counts, instance_counts = table_counts(table)
    label = category_id - 1  # LVIS ids have no gaps
    assert (image_counts[label], instance_counts[label]) == (images, instances)
    by_image = statistics.repeat_factors(image_counts, IMAGES[table], 0.001)
    by_both = statistics.instance_repeat_factors(image_counts, instance_counts, IMAGES[table], 0.001)
    assert by_image[label] == pytest.approx(rfs, abs=5e-5)
    assert by_both[label] == pytest.approx(irfs, abs=5e-5)


def test_how_many_lvis_v1_classes_are_repeated():
    image_counts, instance_counts = table_counts("lvis_v1_train")
    rfs = statistics.repeat_factors(image_counts, 100_170, 0.001)
    irfs = statistics.instance_repeat_factors(image_counts, instance_counts, 100_170, 0.001)
    assert ((rfs > 1).sum(), round(rfs.max(), 2)) == (798, 10.01)
    assert ((irfs > 1).sum(), round(irfs.max(), 1)) == (894, 18.9)


@pytest.mark.parametrize(
    ("table", "groups", "gini_images", "gini_instances"),
    [("lvis_v1_train", (337, 461, 405), 0.773, 0.820), ("lvis_v0.5_train", (454, 461, 315), 0.778, 0.825)],
)
def test_tables_have_the_published_groups_and_inequality(table, groups, gini_images, gini_instances):
    image_counts, instance_counts = table_counts(table)
    stated = [category.frequency for category in category_tables.load(table)]
    assert tuple(stated.count(group) for group in "rcf") == groups
    assert statistics.groups_by_count(image_counts).tolist() == stated
    assert statistics.gini(image_counts) == pytest.approx(gini_images, abs=5e-4)
    assert statistics.gini(instance_counts) == pytest.approx(gini_instances, abs=5e-4)


def pairs_of(classes_per_image, num_classes):
    """Pairs from lists of labels, with repetitions counted as instances."""
    found = [(i, c, labels.count(c)) for i, labels in enumerate(classes_per_image) for c in sorted(set(labels))]
    image_, label, instances = np.array(found, np.int64).reshape(-1, 3).T
    return Pairs(image_, label, instances, len(classes_per_image), num_classes)


@pytest.mark.parametrize("threshold", [0.001, 0.01, 0.1])
def test_image_factors_equal_the_reference(threshold):
    folder = shared("golden/ops")
    lists = json.loads((folder / "d2_ops.json").read_text())["rfs_image_categories"]
    expected = np.load(folder / "d2_ops.npz")[f"rfs_factors_t{threshold}"]
    pairs = pairs_of(lists, 1 + max(map(max, lists)))
    factors = statistics.repeat_factors(pairs.counts(), pairs.num_images, threshold)
    np.testing.assert_allclose(statistics.image_repeat_factors(pairs, factors), expected, rtol=1e-6)


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=20), st.floats(1e-3, 10))
def test_factors_agree_with_the_definition(lists, threshold):
    pairs = pairs_of(lists, 6)
    images = [sum(c in labels for labels in lists) for c in range(6)]
    instances = [sum(labels.count(c) for labels in lists) for c in range(6)]
    total = sum(instances)

    def factor(frequency):
        return max(1.0, (threshold / frequency) ** 0.5) if frequency else 1.0

    rfs = [factor(count / len(lists)) for count in images]
    irfs = [factor((i / len(lists) * n / total) ** 0.5 if n else 0) for i, n in zip(images, instances, strict=True)]
    assert pairs.counts("image").tolist() == images
    assert pairs.counts("instance").tolist() == instances
    np.testing.assert_allclose(statistics.repeat_factors(np.array(images), len(lists), threshold), rfs)
    np.testing.assert_allclose(
        statistics.instance_repeat_factors(np.array(images), np.array(instances), len(lists), threshold), irfs
    )
    per_image = statistics.image_repeat_factors(pairs, np.array(rfs))
    expected = [max((rfs[c] for c in labels), default=1.0) for labels in lists]
    np.testing.assert_allclose(per_image, expected, rtol=1e-6)
    assert per_image.dtype == np.float32
    assert (per_image >= 1).all()


@given(npst.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 1000)))
def test_gini_is_half_the_relative_mean_difference(counts):
    expected = np.abs(counts[:, None] - counts[None]).mean() / (2 * counts.mean()) if counts.sum() else 0.0
    assert statistics.gini(counts) == pytest.approx(expected, abs=1e-12)


def test_counts_ignore_crowds_and_can_be_limited_to_some_images(tmp_path, monkeypatch):
    monkeypatch.setenv("PODS_CACHE", str(tmp_path))
    entries = [
        annotation(1, 5, 20), annotation(2, 5, 20), annotation(3, 5, 9),
        annotation(4, 6, 9, iscrowd=1), annotation(5, 7, 9),
    ]  # fmt: skip
    path = write_json(tmp_path / "x.json", [image(5), image(6), image(7), image(8)], entries, categories(9, 20))
    loaded = annotations.load(catalog.resolve(DatasetFiles(annotations=str(path), images=str(tmp_path)), tmp_path))
    assert statistics.annotated_images(loaded).tolist() == [0, 2]
    assert statistics.count_classes(loaded, "image").tolist() == [2, 1]
    assert statistics.count_classes(loaded, "instance").tolist() == [2, 2]
    only_last = statistics.pairs(loaded, np.array([2, 3]))
    assert (only_last.num_images, only_last.counts().tolist()) == (2, [1, 0])
    assert only_last.image.tolist() == [0]
