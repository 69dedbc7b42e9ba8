import numpy as np
import pytest
from evaluation_cases import box_mask, synthetic, write_case

from cvpods_ext.evaluation.detection import ground_truth
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.selection import LVIS_LIMIT, select_annotations
from cvpods_ext.evaluation.detection.tide import KINDS, classify, costs

SIDE = 200
FIRST, SECOND, THIRD, LONELY = [10, 10, 40, 40], [100, 10, 40, 40], [10, 100, 40, 40], [100, 100, 40, 40]


def detection(category, box, score):
    segmentation = box_mask(SIDE, SIDE, box)
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score, "segmentation": segmentation}


@pytest.fixture(params=["bbox", "segm"])
def case(request, tmp_path):
    """Objects of category 1 at FIRST and SECOND, of category 2 at THIRD and LONELY; one mistake of each kind."""
    image = {"id": 1, "height": SIDE, "width": SIDE, "neg_category_ids": [3], "not_exhaustive_category_ids": []}
    placed = ((1, FIRST), (1, SECOND), (2, THIRD), (2, LONELY))
    annotations = {
        "images": [image],
        "categories": [{"id": k, "name": str(k), "frequency": "rcf"[k - 1]} for k in (1, 2, 3)],
        "annotations": [
            {
                "id": k,
                "image_id": 1,
                "category_id": c,
                "bbox": box,
                "area": 1600,
                "segmentation": box_mask(SIDE, SIDE, box),
            }
            for k, (c, box) in enumerate(placed)
        ],
    }
    detections = [
        detection(1, FIRST, 0.9),  # right
        detection(1, [12, 10, 40, 40], 0.8),  # duplicate
        detection(1, [125, 10, 40, 40], 0.7),  # localisation of SECOND, IoU 15 / 65
        detection(3, [10, 102, 40, 40], 0.6),  # classification of THIRD
        detection(1, [30, 130, 40, 40], 0.5),  # both: THIRD, IoU 200 / 3000 is below 0.1 ...
        detection(1, [20, 120, 40, 40], 0.45),  # both: THIRD, IoU 600 / 2600
        detection(2, [60, 60, 20, 20], 0.4),  # background
    ]
    path, shards = write_case(tmp_path, annotations, detections)
    gt = ground_truth.load(path, masks=True)
    table = match_table(gt, shards, request.param, LVIS_LIMIT)
    return table, classify(select_annotations(gt, request.param), shards, table, request.param)


def test_each_kind_of_mistake_is_recognised(case):
    table, errors = case
    kinds = [KINDS[k] if k >= 0 else "right" for k in errors.kind]
    by_score = dict(zip(np.round(table.evaluated.score, 2).tolist(), kinds, strict=True))
    assert by_score == {
        0.9: "right",
        0.8: "duplicate",
        0.7: "localisation",
        0.6: "classification",
        0.5: "background",
        0.45: "both",
        0.4: "background",
    }
    assert errors.missed.tolist() == [False, False, False, True]
    counts = errors.counts(table)
    assert counts["all"] == {
        "classification": 1,
        "localisation": 1,
        "both": 1,
        "duplicate": 1,
        "background": 2,
        "missed": 1,
    }
    assert counts["r"]["background"] == 1
    assert counts["c"]["missed"] == 1
    assert counts["f"]["classification"] == 1


def test_the_oracle_gains_what_the_hand_computes(case):
    table, errors = case
    gained = costs(table, errors)
    # category 1: right, wrong, wrong, ... -> AP50 51 / 101; category 2: 0
    assert gained["localisation"]["r"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101 - 100 * 51 / 101)
    assert gained["classification"]["c"] == pytest.approx(100 * 51 / 101)
    assert gained["classification"]["r"] == pytest.approx(0.0)
    assert gained["missed"]["c"] == pytest.approx(0.0)
    assert gained["duplicate"]["all"] == pytest.approx(0.0)
    assert gained["background"]["f"] is None


def test_every_false_positive_has_one_kind_and_no_oracle_loses(tmp_path):
    annotations, detections = synthetic(3)
    path, shards = write_case(tmp_path, annotations, detections)
    gt = ground_truth.load(path, masks=False)
    table = match_table(gt, shards, "bbox", LVIS_LIMIT)
    errors = classify(select_annotations(gt, "bbox"), shards, table, "bbox")
    wrong = (table.evaluated.misses & np.uint64(1)) > 0
    np.testing.assert_array_equal(errors.kind >= 0, wrong)
    assert sum(errors.counts(table)["all"][kind] for kind in KINDS) == wrong.sum()
    gained = costs(table, errors)
    assert all(gained[kind]["all"] >= -1e-9 for kind in ("localisation", "both", "duplicate", "background", "missed"))
    assert max(gains["all"] for gains in gained.values()) > 1
