import numpy as np
import pytest
from evaluation_cases import synthetic, write_case

from cvpods_ext.evaluation.detection import ground_truth
from cvpods_ext.evaluation.detection.large_vocabulary import cut_per_image, large_vocabulary

BOX = [10.0, 10.0, 40.0, 40.0]
ELSEWHERE = [60.0, 60.0, 30.0, 30.0]


def two_categories(scores):
    """Category 1 (rare): one hit; category 2 (frequent): one hit and one error, with the given scores."""
    image = {"height": 100, "width": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    annotations = {
        "images": [{"id": 1, **image}],
        "categories": [{"id": 1, "name": "a", "frequency": "r"}, {"id": 2, "name": "b", "frequency": "f"}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": k, "bbox": BOX, "area": 1600.0, "iscrowd": 0} for k in (1, 2)
        ],
    }
    rows = zip((1, 2, 2), (BOX, BOX, ELSEWHERE), scores, strict=True)
    detections = [{"image_id": 1, "category_id": c, "bbox": box, "score": s} for c, box, s in rows]
    return annotations, detections


def evaluate(tmp_path, case):
    path, shards = write_case(tmp_path, *case)
    return large_vocabulary(ground_truth.load(path, masks=False), shards, "bbox")


def test_pooling_punishes_an_error_that_outranks_another_category(tmp_path):
    result = evaluate(tmp_path, two_categories((0.5, 0.9, 0.8)))
    # within its category the error comes last and costs nothing
    assert result.fixed["AP"] == pytest.approx(100.0)
    # pooled: hit, error, hit -> precision 1 up to recall 0.5 (51 of 101 points), then 2/3
    assert result.pool["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert result.pool["APr"] == pytest.approx(100.0)
    assert result.pool["APf"] == pytest.approx(100.0)
    assert result.pool["APc"] is None


def test_a_calibrated_error_costs_nothing_in_the_pool(tmp_path):
    assert evaluate(tmp_path, two_categories((0.5, 0.9, 0.1))).pool["AP"] == pytest.approx(100.0)


def test_a_file_that_was_cut_per_image_is_warned_about(tmp_path, caplog):
    annotations, detections = synthetic(2, images=4, per_image=150)
    path, shards = write_case(tmp_path, annotations, detections)
    result = large_vocabulary(ground_truth.load(path, masks=False), shards, "bbox")
    assert result.cut_at == 150
    assert "cut at 150 detections per image" in caplog.text
    assert result.fixed["AP"] is not None


def test_a_file_with_differing_counts_was_not_cut(tmp_path):
    annotations, detections = synthetic(2, images=4, per_image=150)
    keep = np.random.default_rng(0).random(len(detections)) < 0.9
    _, shards = write_case(tmp_path, annotations, [d for d, kept in zip(detections, keep, strict=True) if kept])
    assert cut_per_image(shards) is None
