"""Accuracies of image classification against slow references, and scores on disk."""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpods_ext.data.class_lists import ImageLabel, numbered
from cvpods_ext.data.classification import LabelledPhotos
from cvpods_ext.data.statistics import FrequencyGroups
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.classification import METRICS, scores
from cvpods_ext.evaluation.classification.evaluate import evaluate
from cvpods_ext.evaluation.classification.metrics import class_totals, intervals, resampled, summarise
from cvpods_ext.evaluation.shards import ShardWriter
from cvpods_ext.structures.classification import ClassScores

GROUPS = np.array(["many", "medium", "few", "few", "few", "few", "few"])


def write(folder, rows, first=1):
    """Scores of images from the id `first` on, in two shards."""
    with ShardWriter(scores.SCORES, folder, 0, {}, shard_images=2) as writer:
        for i, row in enumerate(rows):
            prediction = ClassScores(torch.as_tensor(row, dtype=torch.float32), first + i)
            writer.append(prediction.image_id, scores.to_rows(prediction))


def dataset(labels, num_classes, tmp_path, classes=None):
    files = [f"{i}.jpg" for i in range(len(labels))]
    return LabelledPhotos("set", tmp_path, files, np.asarray(labels), classes or numbered(num_classes))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_all_metrics_equal_a_loop_over_images(tmp_path_factory, seed):
    rng = np.random.default_rng(seed)
    num_images, num_classes = int(rng.integers(1, 40)), len(GROUPS)
    truth = rng.integers(0, num_classes, num_images)
    found = rng.integers(0, 9, (num_images, num_classes)) / 8  # many ties
    folder = tmp_path_factory.mktemp("scores")
    write(folder, found)
    groups, photos = FrequencyGroups(GROUPS, "by hand"), dataset(truth, num_classes, folder)
    metrics, facts = evaluate(photos, folder, groups, np.arange(num_classes), 20)
    first, five, by_class = [], [], {k: [] for k in range(num_classes)}
    for label, row in zip(truth, found, strict=True):
        before = sum(row[k] > row[label] or (row[k] == row[label] and k < label) for k in range(num_classes))
        first.append(before == 0)
        five.append(before < 5)
        by_class[label].append(before == 0)
    of_class = {k: 100 * np.mean(v) for k, v in by_class.items() if v}
    expected = {"top1": 100 * np.mean(first), "top5": 100 * np.mean(five), "mean": np.mean(list(of_class.values()))}
    for group in ("many", "medium", "few"):
        inside = [value for k, value in of_class.items() if GROUPS[k] == group]
        expected[group] = np.mean(inside) if inside else None
    assert metrics == {name: value if value is None else pytest.approx(value) for name, value in expected.items()}
    assert facts["classes_by_frequency"] == {"many": 1, "medium": 1, "few": 5}
    assert tuple(metrics) == METRICS.family("classification").names
    low, high = facts["intervals"]["top1"]
    assert 0 <= low <= high <= 100


def test_resampled_totals_are_those_of_the_drawn_images():
    rng = np.random.default_rng(0)
    labels, ranks = rng.integers(0, 4, 30), rng.integers(0, 8, 30)
    drawn = resampled(labels, ranks, 4, 5, seed=3)
    again = np.random.default_rng(3)
    for b in range(5):
        chosen = again.integers(30, size=30)
        assert np.array_equal(drawn[:, b], class_totals(labels[chosen], ranks[chosen], 4))


def test_intervals_of_a_sure_thing_have_no_width_and_of_nothing_are_none():
    labels = np.array([0, 0, 1])
    ranks = np.zeros(3)
    found = intervals(class_totals(labels, ranks, 7), resampled(labels, ranks, 7, 50), GROUPS)
    assert found["top1"] == (100.0, 100.0)
    assert found["few"] is None


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Images of one class that are right with probability 0.7: the true accuracy is known."""
    rng = np.random.default_rng(1)
    groups, inside = np.array(["many"]), 0
    for seed in range(200):
        ranks = (rng.random(200) > 0.7).astype(int)
        labels = np.zeros(200, int)
        totals = class_totals(labels, ranks, 1)
        low, high = intervals(totals, resampled(labels, ranks, 1, 200, seed), groups)["top1"]
        inside += low <= 70 <= high
    assert 180 <= inside <= 199  # 95 % of 200 is 190, its deviation 3


def test_a_class_without_test_images_moves_no_mean():
    totals = np.array([[4, 0, 2], [2, 0, 2], [4, 0, 2]])
    found = summarise(totals, np.array(["many", "few", "few"]))
    assert found["mean"] == 75
    assert found["few"] == 100


def test_images_without_scores_are_left_out_and_counted(tmp_path):
    write(tmp_path, [[0.9, 0.1], [0.9, 0.1]], first=2)
    groups = FrequencyGroups(np.array(["many", "few"]), "by hand")
    metrics, facts = evaluate(dataset([1, 0, 1, 1], 2, tmp_path), tmp_path, groups, np.array([5, 1]), 0)
    assert metrics["top1"] == 50
    assert (facts["images"], facts["images_without_predictions"]) == (2, 2)
    assert "intervals" not in facts


def test_the_table_of_classes_says_what_each_is_mistaken_for(tmp_path):
    write(tmp_path, [[0.1, 0.9], [0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    named = (ImageLabel("n1", "=cmd()"), ImageLabel("n2", "bee"))
    groups = FrequencyGroups(np.array(["many", "few"]), "by hand")
    evaluate(dataset([0, 0, 0, 1], 2, tmp_path, named), tmp_path, groups, np.array([300, 3]), 0)
    with open(tmp_path / "per_class.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["name"] == "'=cmd()"  # no formula for a spreadsheet
    assert (rows[0]["top1"], rows[0]["mistaken_for"], rows[0]["mistaken_images"]) == ("33.3333", "bee", "2")
    assert (rows[1]["top1"], rows[1]["mistaken_for"], rows[1]["train_images"]) == ("100.0000", "", "3")


def test_only_the_highest_scores_are_kept(tmp_path):
    row = np.linspace(0, 1, 1000)
    write(tmp_path, [row])
    found = scores.read(tmp_path, 1, 1000)
    assert found.labels[0].tolist() == list(range(999, 979, -1))
    assert found.ranks(np.array([980])).tolist() == [19]
    assert found.ranks(np.array([5])).tolist() == [20]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused(value):
    with pytest.raises(DataError, match="diverged"):
        scores.to_rows(ClassScores(torch.tensor([0.5, value]), 7))


@pytest.mark.parametrize(
    ("num_images", "num_classes", "message"),
    [(1, 3, "the image 2"), (2, 2, "2 scores of each"), (2, 30, "20 scores of each")],
)
def test_scores_of_another_test_are_refused(tmp_path, num_images, num_classes, message):
    write(tmp_path, [[0.1, 0.9, 0.2], [0.5, 0.1, 0.4]])
    with pytest.raises(DataError, match=message):
        scores.read(tmp_path, num_images, num_classes)


def test_a_shard_of_other_columns_or_cut_short_is_refused(tmp_path):
    write(tmp_path, [[0.1, 0.9, 0.2]])
    (path,) = scores.SCORES.files(tmp_path)
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["score"]), path)
    with pytest.raises(DataError, match="column score"):
        scores.read(tmp_path, 1, 3)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="not a complete Parquet file"):
        scores.read(tmp_path, 1, 3)
