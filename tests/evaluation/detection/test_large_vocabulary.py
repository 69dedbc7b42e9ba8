import numpy as np
import pytest
from evaluation_cases import synthetic, two_categories, write_case

from cvpods_ext.evaluation.detection.evaluate import evaluate
from cvpods_ext.evaluation.detection.large_vocabulary import cut_per_image

FAMILIES = ("bbox_fixed", "bbox_pool")


def test_pooling_punishes_an_error_that_outranks_another_category(tmp_path):
    result = evaluate(*write_case(tmp_path, *two_categories((0.5, 0.9, 0.8))), FAMILIES)
    # within its category the error comes last and costs nothing
    assert result["bbox_fixed"]["AP"] == pytest.approx(100.0)
    # pooled: hit, error, hit -> precision 1 up to recall 0.5 (51 of 101 points), then 2/3
    assert result["bbox_pool"]["AP"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert result["bbox_pool"]["APr"] == pytest.approx(100.0)
    assert result["bbox_pool"]["APf"] == pytest.approx(100.0)
    assert result["bbox_pool"]["APc"] is None


def test_a_calibrated_error_costs_nothing_in_the_pool(tmp_path):
    result = evaluate(*write_case(tmp_path, *two_categories((0.5, 0.9, 0.1))), FAMILIES)
    assert result["bbox_pool"]["AP"] == pytest.approx(100.0)


def test_a_file_that_was_cut_per_image_is_warned_about(tmp_path, caplog):
    annotations, detections = synthetic(2, images=4, per_image=150)
    case = write_case(tmp_path, annotations, detections)
    result = evaluate(*case, FAMILIES)
    assert result.settings["detections_cut_per_image"] == 150
    assert "detections_cut_per_image" not in evaluate(*case, ("bbox",)).settings
    assert "cut at 150 detections per image" in caplog.text
    assert result["bbox_fixed"]["AP"] is not None


def test_a_file_with_differing_counts_was_not_cut(tmp_path):
    annotations, detections = synthetic(2, images=4, per_image=150)
    keep = np.random.default_rng(0).random(len(detections)) < 0.9
    _, shards = write_case(tmp_path, annotations, [d for d, kept in zip(detections, keep, strict=True) if kept])
    assert cut_per_image(shards) is None
