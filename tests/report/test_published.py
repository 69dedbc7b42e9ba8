"""Published numbers: every one equals the collected facts, and every record names its source."""

import json

import pytest
from shared import shared

from cvpods_ext.evaluation.detection import METRICS
from cvpods_ext.report import published

LVIS_CARDS = "mask_rcnn.res50.fpn.lvis"


def test_every_record_has_a_source_and_known_metrics():
    for by_dataset in published.load().values():
        for record in by_dataset.values():
            assert record.source
            assert record.url.startswith("https://")
            assert record.metrics
            for task, metrics in record.metrics.items():
                assert metrics
                if task in ("bbox", "segm"):
                    assert set(metrics) <= set(METRICS.family(task).names)
                assert all(0 <= value <= 100 for value in metrics.values())


def test_detection_records_that_say_so_name_their_limit_and_schedule():
    cards = [
        record
        for name, sets in published.load().items()
        for record in sets.values()
        if name.startswith(LVIS_CARDS) and record.source.startswith("DisAlign")
    ]
    assert len(cards) == 13
    assert all(record.confounders["max_detections"] == 300 and record.confounders["schedule"] for record in cards)


def test_experiment_cards_and_eva02_equal_the_collected_facts():
    facts = json.loads(shared("data/published_results.json").read_text())
    checked = 0
    for fact in facts:
        if fact["system"] not in ("DisAlign", "EVA-02 det") or "task" not in fact:
            continue
        record = published.find(fact["name"], fact["dataset"])
        assert record is not None, fact["name"]
        assert record.metrics[fact["task"]] == fact["metrics"]
        assert record.confounders["max_detections"] == fact["max_dets_per_image"]
        checked += 1
    assert checked == 44


@pytest.mark.parametrize(
    ("name", "dataset", "task", "expected"),
    [
        ("mask_rcnn.res50.fpn.lvis.multiscale.1x", "lvis_v0.5_val", "bbox", (20.355, 2.131, 18.613, 29.815)),
        ("mask_rcnn.res50.fpn.lvisv1.multiscale.1x", "lvis_v1_val", "segm", (18.296, 1.011, 15.640, 28.858)),
        (
            "mask_rcnn.res50.fpn.lvis.multiscale.rfs.cos_norm.disalign.1x",
            "lvis_v0.5_val",
            "segm",
            (27.490, 18.697, 29.165, 28.905),
        ),
    ],
)
def test_the_parity_targets_are_there_under_their_published_names(name, dataset, task, expected):
    record = published.find(name, dataset)
    assert record is not None
    assert tuple(record.metrics[task][metric] for metric in ("AP", "APr", "APc", "APf")) == expected


def test_a_folder_finds_the_row_that_its_source_calls_otherwise():
    folder = published.find("mask_rcnn.res101.fpn.lvis.multiscale.cos_norm.disalign.1x", "lvis_v0.5_val")
    assert folder == published.find("MaskRCNN-R101-FPN-DisAlign cosine", "lvis_v0.5_val")
    assert folder is not None
    assert folder.metrics == {"bbox": {"AP": 27.6}, "segm": {"AP": 28.1}}
    assert published.find("mask_rcnn.res101.fpn.lvisv1.multiscale.cos_norm.disalign.1x", "lvis_v1_val") is None


def test_nothing_is_invented_for_the_folder_that_nobody_published():
    assert published.find("mask_rcnn.res50.fpn.lvisv1.multiscale.rfs.cos_norm.disalign.1x", "lvis_v1_val") is None
