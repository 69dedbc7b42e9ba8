"""The metric table of detection and instance segmentation."""

from __future__ import annotations

from cvpods_ext.evaluation.metric_table import Family, Metric, MetricTable

_GROUPS = {"r": "rare classes", "c": "common classes", "f": "frequent classes"}
_SIZES = {"s": "small objects (area below 32 x 32 pixels)", "m": "medium objects", "l": "objects above 96 x 96 pixels"}

_PRECISION = (
    Metric(name="AP", description="average precision, mean over IoU 0.50 to 0.95 and over classes"),
    Metric(name="AP50", description="AP at IoU 0.50"),
    Metric(name="AP75", description="AP at IoU 0.75"),
    *(Metric(name=f"AP{letter}", description=f"AP of {words}") for letter, words in _SIZES.items()),
    *(Metric(name=f"AP{letter}", description=f"AP of {words}") for letter, words in _GROUPS.items()),
)
_RECALL = (
    Metric(name="AR", description="recall at all detections that count, mean over IoU and classes"),
    *(Metric(name=f"AR{letter}", description=f"AR of {words}") for letter, words in _SIZES.items()),
    Metric(name="AR1", description="recall of the best detection per image and class (COCO)"),
    Metric(name="AR10", description="recall of the ten best detections per image and class (COCO)"),
)
_BY_FREQUENCY = ("AP", "APr", "APc", "APf")
_BY_SIZE = ("AP", "APs", "APm", "APl")


def _precision_family(name: str, title: str) -> Family:
    return Family(
        name=name, title=title, metrics=(*_PRECISION, *_RECALL), headline="AP", columns=(_BY_FREQUENCY, _BY_SIZE)
    )


METRICS = MetricTable(
    families=(
        _precision_family("bbox", "box AP"),
        _precision_family("segm", "mask AP"),
        _precision_family("boundary", "boundary AP"),
    )
)
