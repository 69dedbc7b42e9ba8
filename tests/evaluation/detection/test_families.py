"""Every family of the metric table is computed, under the table's names, with the values of a definition."""

import json

import pytest
from evaluation_cases import perturbed, synthetic, two_categories, write_case
from shared import shared

from cvpods_ext.evaluation.detection.evaluate import evaluate
from cvpods_ext.evaluation.detection.metrics import METRICS

COCO_ONLY = {"AR1", "AR10"}


@pytest.fixture(scope="module")
def lvis(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("lvis"), *synthetic(0))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    annotations = json.loads(shared("data/datasets/coco/annotations/instances_val2017.json").read_text())
    return write_case(tmp_path_factory.mktemp("coco"), annotations, perturbed(annotations, seed=5, per_object=12))


@pytest.mark.parametrize("family", METRICS.families, ids=lambda family: family.name)
def test_a_family_has_the_metrics_that_the_table_lists(family, lvis, coco):
    assert set(evaluate(*coco, [family.name])[family.name]) == set(family.names)
    missing = set(family.names) - set(evaluate(*lvis, [family.name])[family.name])
    assert missing == (COCO_ONLY if family.name in ("bbox", "segm", "boundary") else set())


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_lvis_recall_at_a_limit_is_ar_of_a_test_with_that_limit(kind, tmp_path):
    case = write_case(tmp_path, *synthetic(11, images=3, per_image=450))
    recall = evaluate(*case, [f"{kind}_recall"])[f"{kind}_recall"]
    for limit in (1, 10, 100, 300):
        official = evaluate(*case, [kind], max_detections=limit, evaluator="lvis")[kind]["AR"]
        assert recall[f"AR{limit}"] == pytest.approx(official, abs=1e-9)
    assert recall["AR"] == pytest.approx(evaluate(*case, [kind], max_detections=10**6)[kind]["AR"], abs=1e-9)
    assert recall["AR1"] < recall["AR10"] < recall["AR100"] < recall["AR300"] <= recall["AR"]
    assert recall["ARr"] is None


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_coco_recall_at_a_limit_is_what_pycocotools_prints(kind, coco):
    recall = evaluate(*coco, [f"{kind}_recall"])[f"{kind}_recall"]
    official = evaluate(*coco, [kind], evaluator="lvis")[kind]
    for ours, theirs in (("AR1", "AR1"), ("AR10", "AR10"), ("AR100", "AR")):
        assert recall[ours] == pytest.approx(official[theirs], abs=1e-9)


def test_the_calibration_error_by_hand(tmp_path):
    # category 1 (rare): right at 0.5; category 2 (frequent): right at 0.9, wrong at 0.8; each in a bin of its own
    result = evaluate(*write_case(tmp_path, *two_categories((0.5, 0.9, 0.8))), ["bbox_calibration"])
    assert result["bbox_calibration"] == {
        "ECE": pytest.approx(100 * (0.5 + 0.1 + 0.8) / 3),
        "ECEr": pytest.approx(50.0),
        "ECEc": None,
        "ECEf": pytest.approx(100 * (0.1 + 0.8) / 2),
    }


def test_the_cost_of_an_error_by_hand(tmp_path):
    # category 2: an error in the background outranks its only right detection, so AP50 is 50 instead of 100
    result = evaluate(*write_case(tmp_path, *two_categories((0.5, 0.9, 0.95))), ["bbox_errors"])["bbox_errors"]
    assert result["background"] == pytest.approx(25.0)
    assert result["background_f"] == pytest.approx(50.0)
    assert result["background_r"] == pytest.approx(0.0)
    assert result["background_c"] is None
    assert [result[kind] for kind in ("classification", "localisation", "both", "duplicate", "missed")] == [0.0] * 5


def test_other_families_leave_the_official_numbers_alone(lvis):
    alone = evaluate(*lvis, ["bbox"])["bbox"]
    assert evaluate(*lvis, [name for name in METRICS.names if name.startswith("bbox")])["bbox"] == alone
