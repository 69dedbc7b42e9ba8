import copy

import numpy as np
import pytest
from evaluation_cases import synthetic, write_case

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection import ground_truth
from cvpods_ext.evaluation.detection.bootstrap import draw, group_means, resampled_aps
from cvpods_ext.evaluation.detection.evaluate import evaluate
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.per_category import category_aps
from cvpods_ext.evaluation.detection.precision_recall import curves
from cvpods_ext.evaluation.detection.selection import LVIS_LIMIT
from cvpods_ext.evaluation.detection.significance import category_effects, compare, draws_for, intervals, resample


def table_of(folder, annotations, detections):
    folder.mkdir(parents=True)
    path, shards = write_case(folder, annotations, detections)
    return match_table(ground_truth.load(path, masks=False), shards, "bbox", LVIS_LIMIT)


def distinct_scores(detections, seed=0):
    """Ties would be broken by image order, which a repeated image cannot keep."""
    scores = np.random.default_rng(seed).permutation(len(detections)) / len(detections)
    return [{**d, "score": float(s)} for d, s in zip(detections, scores, strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_counting_every_image_once_is_the_ordinary_ap(seed, tmp_path):
    annotations, detections = synthetic(seed, images=12)
    table = table_of(tmp_path / "a", annotations, detections)
    expected = category_aps(curves(table.evaluated, table.objects, table.num_categories).precision)
    ones = np.ones((2, len(table.image_ids)), dtype=np.float32)
    np.testing.assert_allclose(resampled_aps(table, ones)[0], expected, atol=1e-3)


def test_an_image_drawn_twice_equals_a_split_that_holds_it_twice(tmp_path):
    annotations, detections = synthetic(3, images=10)
    detections = distinct_scores(detections)
    table = table_of(tmp_path / "a", annotations, detections)
    counts = np.random.default_rng(1).integers(0, 3, len(table.image_ids))
    resampled = resampled_aps(table, counts[None].astype(np.float32))[0]

    drawn = {**annotations, "images": [], "annotations": []}
    drawn_detections = []
    for image_id, count in zip(table.image_ids.tolist(), counts, strict=True):
        for copy_number in range(count):
            new_id = image_id + 1000 * copy_number
            image = next(i for i in annotations["images"] if i["id"] == image_id)
            drawn["images"].append({**image, "id": new_id})
            for source, target in ((annotations["annotations"], drawn["annotations"]), (detections, drawn_detections)):
                target += [{**copy.copy(r), "image_id": new_id} for r in source if r["image_id"] == image_id]
    twice = table_of(tmp_path / "b", drawn, drawn_detections)
    expected = category_aps(curves(twice.evaluated, twice.objects, twice.num_categories).precision)
    np.testing.assert_allclose(resampled, expected, atol=1e-3)


def test_group_means_are_the_ordinary_metrics(tmp_path):
    annotations, detections = synthetic(0)
    (tmp_path / "a").mkdir()
    path, shards = write_case(tmp_path / "a", annotations, detections)
    table = match_table(ground_truth.load(path, masks=False), shards, "bbox", LVIS_LIMIT)
    metrics = evaluate(path, shards, families=("bbox",))["bbox"]
    aps = category_aps(curves(table.evaluated, table.objects, table.num_categories).precision)
    means = group_means(aps[None], table.frequency)[0]
    assert means[[0, 2, 3]] == pytest.approx([metrics["AP"], metrics["APc"], metrics["APf"]], abs=1e-9)
    assert np.isnan(means[1])
    assert metrics["APr"] is None


def test_draws_keep_the_number_of_images_and_of_categories_in_each_group():
    frequency = np.array([0, 0, 1, 2, 2, 2])
    draws = draw(20, frequency, resamples=50, seed=3)
    assert (draws.images.sum(axis=1) == 20).all()
    for group, size in ((0, 2), (1, 1), (2, 3)):
        assert (draws.categories[:, frequency == group].sum(axis=1) == size).all()
    again = draw(20, frequency, resamples=50, seed=3)
    np.testing.assert_array_equal(draws.images, again.images)
    assert draws.images.std() > 0


@pytest.fixture(scope="module")
def experiments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiments")
    annotations, detections = synthetic(7, images=40, categories=12)
    good = [{"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
            for a in annotations["annotations"] if a["id"] % 10]  # fmt: skip
    slightly = [{**d, "score": d["score"] * (0.999 if k % 7 else 0.9)} for k, d in enumerate(detections)]
    return {
        name: table_of(folder / name, annotations, found)
        for name, found in (("noise", detections), ("slightly", slightly), ("good", good))
    }


def test_a_model_does_not_differ_from_itself(experiments):
    draws = draws_for(experiments["noise"], resamples=100)
    once = resample([experiments["noise"]], draws)
    result = compare(once, once, draws)
    assert result["AP"].interval.low == result["AP"].interval.value == result["AP"].interval.high == 0.0
    assert result["AP"].verdict == "not distinguishable at this size"
    assert result["APr"] is None


def test_a_large_gap_is_found_in_both_directions_and_a_tiny_one_is_not(experiments):
    draws = draws_for(experiments["noise"], resamples=200)
    resampled = {name: resample([table], draws) for name, table in experiments.items()}
    up = compare(resampled["noise"], resampled["good"], draws)["AP"]
    down = compare(resampled["good"], resampled["noise"], draws)["AP"]
    assert (up.verdict, down.verdict) == ("higher", "lower")
    assert up.interval.low < up.interval.value < up.interval.high
    assert up.interval.value == pytest.approx(-down.interval.value)
    assert compare(resampled["noise"], resampled["slightly"], draws)["AP"].verdict.startswith("not distinguishable")
    effects = category_effects(resampled["noise"], resampled["good"])
    assert sum(e.effect for e in effects) == pytest.approx(up.interval.value)
    assert [abs(e.effect) for e in effects] == sorted((abs(e.effect) for e in effects), reverse=True)


def test_seeds_are_pooled(experiments):
    draws = draws_for(experiments["noise"], resamples=100)
    seeds = resample([experiments["noise"], experiments["slightly"]], draws)
    interval = intervals(seeds, draws)["AP"]
    alone = intervals(resample([experiments["noise"]], draws), draws)["AP"]
    assert len(interval.runs) == 2
    assert interval.value == pytest.approx(np.mean(interval.runs))
    assert alone.runs == (alone.value,)
    assert min(interval.runs) != max(interval.runs)


def test_runs_of_different_splits_are_refused(experiments, tmp_path):
    other = table_of(tmp_path / "x", *synthetic(1))
    with pytest.raises(DataError, match="different splits"):
        resample([experiments["noise"], other], draws_for(other, resamples=2))
