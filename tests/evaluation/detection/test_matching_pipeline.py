import numpy as np
import pytest
import reference_evaluator
from evaluation_cases import perturbed, synthetic, write_case
from hypothesis import given, settings
from hypothesis import strategies as st

from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.detection import coco_json, ground_truth, match_shards, matching_pipeline
from cvpods_ext.evaluation.detection.bootstrap import group_means, resampled_aps
from cvpods_ext.evaluation.detection.evaluate import evaluate
from cvpods_ext.evaluation.detection.families import metrics_of
from cvpods_ext.evaluation.detection.greedy_matching import match
from cvpods_ext.evaluation.detection.iou import Overlaps
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.per_category import category_aps
from cvpods_ext.evaluation.detection.precision_recall import curves
from cvpods_ext.evaluation.detection.protocol import IOU_THRESHOLDS, Criteria
from cvpods_ext.evaluation.detection.selection import LVIS_LIMIT, Limit
from cvpods_ext.evaluation.detection.shards import shard_files


@pytest.fixture
def case(tmp_path):
    annotations, detections = synthetic(0)
    return annotations, detections, *write_case(tmp_path, annotations, detections)


def equal(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in vars(first))


def test_the_table_is_kept_until_a_shard_changes(case, monkeypatch):
    _, _, path, shards = case
    gt = ground_truth.load(path, masks=False)
    table = match_table(gt, shards, "bbox", LVIS_LIMIT)

    def refuse(*_):
        raise AssertionError("computed again")

    with monkeypatch.context() as context:
        context.setattr(matching_pipeline, "_candidates", refuse)
        again = match_table(gt, shards, "bbox", LVIS_LIMIT)
        assert equal(again.evaluated, table.evaluated)
        assert equal(again.objects, table.objects)
        shard = shard_files(shards)[0]
        shard.touch()
        with pytest.raises(AssertionError, match="computed again"):
            match_table(gt, shards, "bbox", LVIS_LIMIT)


def test_a_damaged_table_is_made_again(case):
    _, _, path, shards = case
    gt = ground_truth.load(path, masks=False)
    table = match_table(gt, shards, "bbox", LVIS_LIMIT)
    kept = shards / "matches-bbox-300_per_image-official.parquet"
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 2])
    assert equal(match_table(gt, shards, "bbox", LVIS_LIMIT).evaluated, table.evaluated)


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_blocks_shards_and_processes_do_not_change_the_table(task, tmp_path, monkeypatch):

    annotations, detections = synthetic(1)
    (tmp_path / "a").mkdir()
    gt_path, one = write_case(tmp_path / "a", annotations, detections)
    gt = ground_truth.load(gt_path, masks=True)
    whole = match_table(gt, one, task, LVIS_LIMIT)
    monkeypatch.setattr(match_shards, "ROWS_AT_ONCE", 17)
    monkeypatch.setattr(coco_json, "_BYTES_PER_SHARD", 7_000)
    (tmp_path / "b").mkdir()
    _, many = write_case(tmp_path / "b", annotations, detections)
    assert len(shard_files(many)) > 2
    for workers in (1, 2):
        for kept in many.glob("matches-*"):
            kept.unlink()
        parts = match_table(gt, many, task, LVIS_LIMIT, workers=workers)
        for name in ("image", "category", "score", "hits", "misses", "partner"):
            np.testing.assert_array_equal(getattr(parts.evaluated, name), getattr(whole.evaluated, name), err_msg=name)


def test_rows_point_into_the_shards(case):
    from cvpods_ext.evaluation.detection.detections import read

    _, _, path, shards = case
    gt = ground_truth.load(path, masks=False)
    evaluated = match_table(gt, shards, "bbox", LVIS_LIMIT).evaluated
    table = read(shards)
    np.testing.assert_array_equal(table.scores[evaluated.row], evaluated.score)
    np.testing.assert_array_equal(table.image_ids[evaluated.row], gt.image_ids[evaluated.image])
    np.testing.assert_array_equal(table.category_ids[evaluated.row], gt.category_ids[evaluated.category])


def test_a_limit_per_category_agrees_with_the_official_evaluator_without_a_limit_per_image(tmp_path):
    annotations, detections = synthetic(5, per_image=90)
    kept = []
    for category in annotations["categories"]:
        of_category = [d for d in detections if d["category_id"] == category["id"]]
        best = sorted(of_category, key=lambda d: -d["score"])[:25]
        kept += [d for d in of_category if any(d is b for b in best)]
    (tmp_path / "all").mkdir()
    (tmp_path / "kept").mkdir()
    path, shards = write_case(tmp_path / "all", annotations, detections)
    in_order = [d for d in detections if any(d is k for k in kept)]
    official = evaluate(
        *write_case(tmp_path / "kept", annotations, in_order), max_detections=10**6, evaluator="lvis", families=["bbox"]
    )
    gt = ground_truth.load(path, masks=False)
    fixed = metrics_of(match_table(gt, shards, "bbox", Limit(per_category=25)), federated=True)
    assert fixed == pytest.approx(official["bbox"], abs=1e-9)
    assert fixed != pytest.approx(evaluate(path, shards, families=["bbox"])["bbox"], abs=1e-3)


def test_a_folder_without_shards_is_named(case, tmp_path):
    gt = ground_truth.load(case[2], masks=False)
    with pytest.raises(DataError, match="pods_test"):
        match_table(gt, tmp_path / "nothing", "bbox", LVIS_LIMIT)


def slow_match(ious, ignored, threshold):
    """One cell, one combination: detections by rank choose the best free annotation, counted ones first."""
    taken, result = set(), []
    for row in ious:
        options = [(not ignored[g], row[g], g) for g in range(len(row)) if row[g] >= threshold and g not in taken]
        best = max(options, default=None)
        result.append(None if best is None else best[2])
        if best is not None:
            taken.add(best[2])
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_matching_equals_a_loop_over_detections(seed):
    rng = np.random.default_rng(seed)
    num_detections, num_annotations = rng.integers(1, 8, 2)
    ious = rng.choice([0.0, 0.5, 0.55, 0.6, 0.8, 0.95, 1.0], (num_detections, num_annotations))
    ignored = rng.random(num_annotations) < 0.3
    d, a = np.nonzero(ious >= 0.5)
    every = np.uint64((1 << 40) - 1)
    result = match(
        Overlaps(d, a, ious[d, a]),
        np.full(num_detections, 7),
        np.where(ignored, every, np.uint64(0)),
        np.zeros(num_annotations, dtype=bool),
    )
    for t, threshold in enumerate(IOU_THRESHOLDS):
        expected = slow_match(ious, ignored, threshold)
        for area in range(4):
            bit = np.uint64(area * 10 + t)
            matched = ((result.matched >> bit) & np.uint64(1)).astype(bool).tolist()
            to_ignored = ((result.to_ignored >> bit) & np.uint64(1)).astype(bool).tolist()
            assert matched == [g is not None for g in expected]
            assert to_ignored == [g is not None and bool(ignored[g]) for g in expected]
    first = slow_match(ious, ignored, 0.5)
    assert result.partner.tolist() == [-1 if g is None else g for g in first]


def test_coco_photos_survive_a_worker_count_of_more_than_shards(tmp_path):
    import json

    from shared import shared

    annotations = json.loads(shared("data/datasets/coco/annotations/instances_val2017.json").read_text())
    path, shards = write_case(tmp_path, annotations, perturbed(annotations, seed=2))
    assert evaluate(path, shards, workers=4)["segm"]["AP"] > 5


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize(
    ("thresholds", "area"), [((0.3,), (0.0, 1e10)), ((0.1, 0.6, 1.0), (0.0, 900.0)), ((0.5,), (300.0, 1e4))]
)
def test_any_iou_and_area_agree_with_the_definition(task, thresholds, area, tmp_path, monkeypatch):
    annotations, detections = synthetic(7, images=8, per_image=60)
    path, shards = write_case(tmp_path, annotations, detections)
    gt = ground_truth.load(path, masks=True)
    table = match_table(gt, shards, task, LVIS_LIMIT, criteria=Criteria(thresholds, (area,)))
    monkeypatch.setattr(reference_evaluator, "THRESHOLDS", list(thresholds))
    monkeypatch.setattr(reference_evaluator, "RANGES", {"": area})
    expected = reference_evaluator.evaluate(annotations, detections, task)
    ones = np.ones((1, len(gt.image_ids)), dtype=np.float32)
    found = curves(table.evaluated, table.objects, table.num_categories, table.criteria)
    means = {
        "by curves": group_means(category_aps(found.precision)[None], gt.frequency)[0],
        "by resampling each image once": group_means(resampled_aps(table, ones), gt.frequency)[0],
    }
    for how, (ap, rare, common, frequent) in means.items():
        assert ap == pytest.approx(expected["AP"], abs=1e-4), how
        assert (common, frequent) == pytest.approx((expected["APc"], expected["APf"]), abs=1e-4), how
        assert np.isnan(rare), how
    assert expected["AP"] > 1
    again = match_table(gt, shards, task, LVIS_LIMIT, criteria=Criteria(thresholds, (area,)))
    assert equal(again.evaluated, table.evaluated)
    if thresholds != (0.5,):
        assert means["by curves"][0] != pytest.approx(metrics_of(match_table(gt, shards, task, LVIS_LIMIT), True)["AP"])


@pytest.mark.parametrize(
    ("thresholds", "areas", "message"),
    [
        ((), ((0, 1),), "IoU thresholds"),
        ((0.5, 0.5), ((0, 1),), "different"),
        ((0.0,), ((0, 1),), r"in \(0, 1\]"),
        ((50.0,), ((0, 1),), r"in \(0, 1\], got \[50.0\]"),
        ((0.5,), ((9, 4),), "got 9 4"),
        ((0.5,), ((0, float("nan")),), "got 0 nan"),
        (tuple(np.linspace(0.1, 0.9, 20)), ((0, 1),) * 4, "exceed 64"),
    ],
)
def test_criteria_that_are_none_are_refused(thresholds, areas, message):
    with pytest.raises(ConfigError, match=message):
        Criteria(thresholds, areas)
