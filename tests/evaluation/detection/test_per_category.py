import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation_cases import synthetic, write_case

from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.detection import ground_truth
from cvpods_ext.evaluation.detection.calibration import calibration, reliability
from cvpods_ext.evaluation.detection.families import metrics_of
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.per_category import per_category, write
from cvpods_ext.evaluation.detection.selection import LVIS_LIMIT


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    annotations, detections = synthetic(4)
    path, shards = write_case(tmp_path_factory.mktemp("case"), annotations, detections)
    return annotations, match_table(ground_truth.load(path, masks=False), shards, "bbox", LVIS_LIMIT)


def test_the_mean_over_categories_is_the_metric(case):
    _, table = case
    rows = per_category(table)
    metrics = metrics_of(table, federated=True)
    for name in ("AP", "AP50", "AP75", "AR"):
        known = [value for value in rows.column(name).to_pylist() if value is not None]
        assert np.mean(known) == pytest.approx(metrics[name], abs=1e-9)
    assert rows.column("AP").null_count == sum(count == 0 for count in rows.column("objects").to_pylist()) > 0


def test_counts_are_those_of_the_annotation_file(case):
    annotations, table = case
    rows = {row["id"]: row for row in per_category(table).to_pylist()}
    for category in annotations["categories"]:
        own = [a for a in annotations["annotations"] if a["category_id"] == category["id"]]
        counted = [a for a in own if a["area"] > 0 and not a.get("ignore")]
        row = rows[category["id"]]
        assert row["objects"] == len(counted)
        assert row["images"] == len({a["image_id"] for a in counted})
        assert row["frequency"] == category["frequency"]
        assert row["true_positives"] + row["false_positives"] == row["detections"]


def test_csv_and_parquet_hold_the_same_table(case, tmp_path):
    rows = per_category(case[1])
    write(rows, tmp_path / "categories.csv")
    write(rows, tmp_path / "categories.parquet")
    assert pq.read_table(tmp_path / "categories.parquet").to_pylist() == rows.to_pylist()
    with open(tmp_path / "categories.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == rows.column("name").to_pylist()
    assert [line["AP"] == "" for line in lines] == [value is None for value in rows.column("AP").to_pylist()]
    with pytest.raises(ConfigError, match=r"categories\.txt"):
        write(rows, tmp_path / "categories.txt")


def test_reliability_by_hand():
    result = reliability(np.array([0.1, 0.2, 0.7, 0.9, 1.0]), np.array([0, 1, 1, 1, 0]), bins=2)
    assert result.count.tolist() == [2, 3]
    assert result.precision.tolist() == pytest.approx([0.5, 2 / 3])
    assert result.score.tolist() == pytest.approx([0.15, 2.6 / 3])
    assert result.error == pytest.approx((2 * 0.35 + 3 * 0.2) / 5)


def test_perfectly_calibrated_scores_have_no_error_and_no_detections_have_none():
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    assert reliability(scores, rng.random(200_000) < scores, bins=10).error < 0.01
    assert reliability(np.zeros(0), np.zeros(0, dtype=bool), bins=10).error is None


def test_calibration_counts_only_judged_detections(case):
    _, table = case
    result = calibration(table)
    evaluated = per_category(table).column("detections").to_pylist()
    assert result["all"].count.sum() == sum(evaluated)
    assert result["c"].count.sum() + result["f"].count.sum() == sum(evaluated)
    assert result["r"].error is None
    assert calibration(table, threshold=9)["all"].error > result["all"].error
