"""Errors get the reason that a hand-made scene was built to show."""

import json

import numpy as np
import pytest

from cvpods_ext.evaluation.detection import ground_truth
from cvpods_ext.evaluation.detection.coco_json import import_json
from cvpods_ext.evaluation.detection.matching_pipeline import match_table
from cvpods_ext.evaluation.detection.metrics import ERROR_KINDS
from cvpods_ext.evaluation.detection.selection import LVIS_LIMIT, select_annotations
from cvpods_ext.evaluation.detection.tide import classify
from cvpods_ext.report.detection.error_examples import MatchedRun, error_examples, example_counts

BOXES = {
    "found": [0, 0, 40, 40],
    "confused": [100, 0, 40, 40],
    "shifted": [0, 100, 40, 40],
    "unseen": [100, 100, 30, 30],
}


def square(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@pytest.fixture(scope="module", params=["bbox", "segm"])
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    annotations = [
        {"id": k, "image_id": 7, "category_id": 1, "bbox": box, "area": box[2] * box[3], "segmentation": square(box)}
        for k, box in enumerate(BOXES.values(), start=1)
    ]
    document = {
        "images": [
            {"id": 7, "height": 200, "width": 200, "neg_category_ids": [2], "not_exhaustive_category_ids": []},
            {"id": 3, "height": 50, "width": 50, "neg_category_ids": [], "not_exhaustive_category_ids": []},
        ],
        "annotations": annotations,
        "categories": [{"id": k, "name": name, "frequency": "r"} for k, name in ((1, "cat"), (2, "dog"))],
    }
    (folder / "gt.json").write_text(json.dumps(document))
    found = [
        (1, BOXES["found"], 0.9),  # right
        (1, [2, 0, 40, 40], 0.8),  # the same object again
        (2, BOXES["confused"], 0.7),  # a cat called a dog
        (1, [0, 125, 40, 40], 0.6),  # IoU 15 / 65 with the shifted one
        (1, [160, 160, 20, 20], 0.5),  # nothing there
        (2, [118, 18, 40, 40], 0.4),  # IoU 0.18 with a cat
    ]
    results = [
        {"image_id": 7, "category_id": c, "bbox": box, "score": score}
        | {"segmentation": {"size": [200, 200], "counts": rle(box)}}
        for c, box, score in found
    ]
    (folder / "results_list.json").write_text(json.dumps(results))
    import_json(folder / "results_list.json", folder / "shards")
    gt = ground_truth.load(folder / "gt.json", masks=True)
    matches = match_table(gt, folder / "shards", request.param, LVIS_LIMIT)
    return MatchedRun(select_annotations(gt, request.param), folder / "shards", matches, request.param)


def rle(box):
    import pycocotools.mask as coco_mask

    return coco_mask.merge(coco_mask.frPyObjects(square(box), 200, 200))["counts"].decode()


def described(run, categories, per_kind):
    found = error_examples(run, categories, per_kind)
    return [
        (
            one.kind,
            one.error,
            None if one.detection < 0 else round(float(found.table.scores[one.detection]), 1),
            None if one.annotation < 0 else list(BOXES)[one.annotation],
        )
        for one in found.examples
    ]


def test_every_kind_of_error_is_recognised(run):
    cat = described(run, [0], per_kind=9)
    assert cat == [
        ("false positive", "duplicate", 0.8, "found"),
        ("false positive", "localisation", 0.6, "shifted"),
        ("false positive", "background", 0.5, None),
        ("false negative", "classification", 0.7, "confused"),
        ("false negative", "localisation", 0.6, "shifted"),
        ("false negative", "missed", None, "unseen"),
    ]
    dog = described(run, [1], per_kind=9)
    assert dog == [
        ("false positive", "classification", 0.7, "confused"),
        ("false positive", "both", 0.4, "confused"),
    ]


def test_the_counts_foretell_how_many_examples_there_are(run):
    for per_kind in (1, 2, 9):
        counted = example_counts(run, per_kind).tolist()
        assert counted == [len(described(run, [category], per_kind)) for category in (0, 1)]


def test_the_best_scored_and_the_largest_come_first_and_the_limit_holds(run):
    first = described(run, [0], per_kind=1)
    assert first[0][:3] == ("false positive", "duplicate", 0.8)
    assert first[1][0] == "false negative"
    assert len(first) == 2
    areas = run.matches.objects.area
    missed = [one.annotation for one in error_examples(run, [0], 9).examples if one.kind == "false negative"]
    assert (np.diff(areas[missed]) <= 0).all()


def test_only_what_is_shown_is_read(run):
    assert len(error_examples(run, [1], per_kind=1).table) == 1
    assert len(error_examples(run, [], per_kind=1).table) == 0


def test_kinds_are_those_of_the_error_table(run):
    errors = classify(run.gt, run.folder, run.matches, run.matched_by)
    counts = errors.counts(run.matches)["all"]
    shown = [one.error for one in error_examples(run, [0, 1], per_kind=9).examples if one.kind == "false positive"]
    assert {name: shown.count(name) for name in ERROR_KINDS[:-1]} == {name: counts[name] for name in ERROR_KINDS[:-1]}
    nowhere = classify(run.gt, run.folder, run.matches, run.matched_by, np.zeros(0, dtype=np.int64))
    assert (nowhere.kind == -1).all()
    assert not nowhere.missed.any()
