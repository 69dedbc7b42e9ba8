"""Published numbers: every one equals the collected facts, and every record names its source."""

import json

import published_classes
import published_figures
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


def facts():
    """Both collections of facts, in one list."""
    names = ("published_results.json", "published_results_2.json")
    return [fact for name in names for fact in json.loads(shared(f"data/{name}").read_text())]


def test_experiment_cards_and_eva02_equal_the_collected_facts():
    checked = 0
    for fact in facts():
        if fact["system"] not in ("DisAlign", "EVA-02 det") or "task" not in fact:
            continue
        record = published.find(fact["name"], fact["dataset"])
        assert record is not None, fact["name"]
        assert record.metrics[fact["task"]] == fact["metrics"]
        assert record.confounders["max_detections"] == fact["max_dets_per_image"]
        if fact["system"] == "EVA-02 det":
            overview = {"bbox": {"AP": fact["train"]["box_ap"]}, "segm": {"AP": fact["train"]["mask_ap"]}}
            assert record.table == overview
            assert set(record.metrics) == set(overview)  # a figure that only the overview has counts too
        checked += 1
    assert checked == 44


def test_rows_of_the_disalign_table_equal_the_collected_facts():
    checked = 0
    for fact in facts():
        if fact["system"] != "DisAlign" or "task" in fact:
            continue
        figures = {
            family: {"AP": fact["metrics"][name]}
            for family, name in (("bbox", "box_AP"), ("segm", "mask_AP"))
            if fact["metrics"][name] is not None
        }
        cost = {"seconds_per_iteration": fact["train_s_per_iter"], "memory_gb": fact["train_mem_gb"]}
        cost = {name: float(value) for name, value in cost.items() if value is not None}
        found = [
            record
            for sets in published.load().values()
            for dataset, record in sets.items()
            if dataset == fact["dataset"] and record.source.startswith("DisAlign") and record.cost == cost
            if figures in (record.table, record.metrics)
        ]
        assert found, fact
        checked += 1
    assert checked == 23


def test_rows_that_a_source_calls_otherwise_equal_the_collected_facts():
    by_row = {(fact["name"], fact["dataset"]): {} for fact in facts()}
    for fact in facts():
        by_row[fact["name"], fact["dataset"]][fact.get("task", "")] = fact
    checked = 0
    for sets in published.load().values():
        for dataset, record in sets.items():
            for family, figures in record.metrics.items() if record.row else ():
                fact = by_row[record.row, dataset].get(family)
                if fact is not None:  # one README prints its box figures apart from this table
                    assert figures == fact["metrics"]
                    checked += 1
    assert checked == 17


def test_an_overview_that_contradicts_its_details_by_more_than_rounding_is_told():
    record = published.find("mask_rcnn.res50.fpn.lvis.multiscale.rfs.cos_norm.1x", "lvis_v0.5_val")
    assert record is not None
    assert record.disagreements() == ["its table says bbox AP 24.5, not 24.552"]
    assert record.describe().endswith(
        "seconds per iteration 0.485; memory gb 5.25; its table says bbox AP 24.5, not 24.552"
    )
    rounded = published.find("mask_rcnn.res50.fpn.lvis.multiscale.1x", "lvis_v0.5_val")
    assert rounded is not None
    assert rounded.table["bbox"] == {"AP": 20.4}  # of 20.355
    assert rounded.disagreements() == []


def test_the_page_of_published_figures_is_up_to_date():
    assert published_figures.PAGE.read_text() == published_figures.page(), "run python benchmarks/published_figures.py"


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


def test_the_page_of_published_classes_is_up_to_date():
    assert published_classes.PAGE.read_text() == published_classes.page(), "run python benchmarks/published_classes.py"


def test_published_ious_of_classes_have_the_published_mean():
    names, iou = published_classes.read()
    assert len(names) == 150
    for experiment, values in iou.items():
        record = published.find(experiment, "ade20k_val")
        assert record.metrics["sem_seg"]["mIoU"] == pytest.approx(values.mean(), abs=0.01)
