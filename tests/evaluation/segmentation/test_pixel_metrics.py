"""Metrics by hand, their intervals against a slow bootstrap, and the metric table."""

import numpy as np
import pytest

from cvpods_ext.evaluation.segmentation import METRICS
from cvpods_ext.evaluation.segmentation.counts import Areas
from cvpods_ext.evaluation.segmentation.metrics import intervals, iou_and_accuracy, summarise, values

# right, predicted, labelled of five classes; the fourth is predicted but absent, the last neither
TOTALS = np.array([[8, 3, 0, 0, 0], [10, 4, 0, 5, 0], [10, 8, 1, 0, 0]])
GROUPS = np.array(["f", "c", "r", "r", "r"])


def test_iou_and_accuracy_by_hand():
    iou, accuracy = iou_and_accuracy(TOTALS)
    assert iou == pytest.approx([100 * 8 / 12, 100 * 3 / 9, 0, 0, np.nan], nan_ok=True)
    assert accuracy == pytest.approx([80, 37.5, 0, np.nan, np.nan], nan_ok=True)


def test_means_skip_what_cannot_be_measured():
    found = summarise(TOTALS, GROUPS)
    assert found["mIoU"] == pytest.approx((200 / 3 + 100 / 3) / 4)
    assert found["mAcc"] == pytest.approx((80 + 37.5 + 0) / 3)
    assert found["aAcc"] == pytest.approx(100 * 11 / 19)
    assert found["mIoUf"] == pytest.approx(200 / 3)
    assert found["mIoUc"] == pytest.approx(100 / 3)
    assert found["mIoUr"] == pytest.approx(0)


def per_image():
    rng = np.random.default_rng(1)
    labelled = rng.integers(0, 30, (12, 3)) * (rng.random((12, 3)) < 0.7)
    right = (labelled * rng.random((12, 3))).astype(int)
    predicted = right + rng.integers(0, 10, (12, 3))
    return np.stack((right, predicted, labelled), axis=1)


def test_a_group_without_classes_has_no_value():
    areas = Areas.gather(list(per_image()), 3)
    found = values("sem_seg", areas, np.array(["f", "f", "c"]))
    assert tuple(found) == METRICS.family("sem_seg").names
    assert found["mIoUr"] is None
    assert found["mIoU"] == pytest.approx(float(summarise(areas.totals, GROUPS[:3])["mIoU"]))
    assert tuple(values("boundary", areas, GROUPS[:3])) == METRICS.family("boundary").names


def test_intervals_equal_a_bootstrap_written_as_a_loop():
    images, groups = per_image(), np.array(["f", "c", "r"])
    rng, drawn = np.random.default_rng(0), []
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=200)
    for each in weights:
        totals = sum(weight * image for weight, image in zip(each, images, strict=True))
        drawn.append(float(summarise(totals, groups)["mIoU"]))
    low, high = intervals("sem_seg", Areas.gather(list(images), 3), groups, resamples=200)["mIoU"]
    measured = float(summarise(images.sum(axis=0), groups)["mIoU"])
    moved = measured - np.mean(drawn)  # the shift of resampling is taken away
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5)) + moved))
    assert low < measured < high


def test_no_interval_where_there_is_no_value():
    found = intervals("sem_seg", Areas.gather(list(per_image()), 3), np.array(["f", "f", "c"]), resamples=10)
    assert found["mIoUr"] is None


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Images of one class whose share of right pixels is drawn around 60 %: 95 % of the intervals hold it."""
    rng, hits = np.random.default_rng(0), 0
    for trial in range(200):
        right = np.clip(rng.normal(60, 15, 40), 0, 100).astype(int)
        areas = [np.array([[each], [100], [100]]) for each in right]
        low, high = intervals("sem_seg", Areas.gather(areas, 1), np.array(["f"]), resamples=200, seed=trial)["mAcc"]
        hits += low <= 59.6 <= high  # the clipped, rounded-down mean
    assert 0.88 <= hits / 200 <= 0.99


def test_official_and_own_metrics_are_told_apart():
    official = {
        (family.name, metric.name) for family in METRICS.families for metric in family.metrics if metric.official
    }
    assert official == {("sem_seg", "mIoU"), ("sem_seg", "mAcc"), ("sem_seg", "aAcc")}
