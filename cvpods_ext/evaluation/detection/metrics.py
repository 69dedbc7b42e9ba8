"""The metric table of detection and instance segmentation.

A family is called after what is matched by (`bbox`: boxes, `segm`: masks, `boundary`: masks and their contours) and,
behind an underscore, what is computed from the matches; `evaluation.detection.families` has a function for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cvpods_ext.evaluation.metric_table import Family, Metric, MetricTable

GROUP_NAMES = {"r": "rare classes", "c": "common classes", "f": "frequent classes"}
ERROR_KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
RECALL_LIMITS = (1, 10, 100, 300)

BY_FREQUENCY = ("AP", "APr", "APc", "APf")
_BY_SIZE = ("AP", "APs", "APm", "APl")
_SIZES = {"s": "small objects (area below 32 x 32 pixels)", "m": "medium objects", "l": "objects above 96 x 96 pixels"}
_MATCHED = {"bbox": "box", "segm": "mask", "boundary": "boundary"}


def _average_precision(*, official: bool) -> tuple[Metric, ...]:
    described = {
        "AP": "average precision, mean over IoU 0.50 to 0.95 and over classes",
        "AP50": "AP at IoU 0.50",
        "AP75": "AP at IoU 0.75",
        **{f"AP{letter}": f"AP of {words}" for letter, words in (_SIZES | GROUP_NAMES).items()},
    }
    return tuple(Metric(name=name, description=words, official=official) for name, words in described.items())


def _average_recall(*, official: bool) -> tuple[Metric, ...]:
    described = {
        "AR": "recall at all detections that count, mean over IoU and classes",
        **{f"AR{letter}": f"AR of {words}" for letter, words in _SIZES.items()},
        "AR1": "recall of the best detection per image and class (COCO)",
        "AR10": "recall of the ten best detections per image and class (COCO)",
    }
    return tuple(Metric(name=name, description=words, official=official) for name, words in described.items())


def _protocol(name: str, matched: str) -> Family:
    official = name != "boundary"  # the packages lvis and pycocotools know boxes and masks
    return Family(
        name=name,
        title=f"{matched} AP",
        metrics=(*_average_precision(official=official), *_average_recall(official=official)),
        headline="AP",
        columns=(BY_FREQUENCY, _BY_SIZE),
        note="" if official else "boundary AP (Cheng et al., 2021) is no part of the official protocol",
    )


def _fixed(name: str, matched: str) -> Family:
    return Family(
        name=f"{name}_fixed",
        title=f"{matched} AP_fixed",
        metrics=(*_average_precision(official=False), *_average_recall(official=False)[:4]),
        headline="AP",
        columns=(BY_FREQUENCY, _BY_SIZE),
        note="AP_fixed counts 10,000 detections per class instead of 300 per image (Dave et al., 2021): not comparable "
        "with AP of the official protocol",
    )


def _pool(name: str, matched: str) -> Family:
    shown = ("AP", "AP50", "AP75", "APr", "APc", "APf")
    by_name = {metric.name: metric for metric in _average_precision(official=False)}
    return Family(
        name=f"{name}_pool",
        title=f"{matched} AP_pool",
        metrics=tuple(by_name[one] for one in shown),
        headline="AP",
        columns=(BY_FREQUENCY,),
        note="AP_pool ranks the detections of all classes together (Dave et al., 2021): not comparable with AP of the "
        "official protocol",
    )


def _recall(name: str, matched: str) -> Family:
    described = {
        **{f"AR{limit}": f"recall if only the {limit} best detections count" for limit in RECALL_LIMITS},
        "AR": "recall if all detections count",
        **{f"AR{letter}": f"AR of {words}" for letter, words in GROUP_NAMES.items()},
    }
    metrics = tuple(Metric(name=one, description=words, official=False) for one, words in described.items())
    return Family(
        name=f"{name}_recall",
        title=f"{matched} AR by number of detections",
        metrics=metrics,
        headline="AR",
        columns=(tuple(described),),
        note="AR1 to AR300 count so many detections per image (LVIS) or per image and class (COCO), AR all of them: an "
        "extension of the official protocol",
    )


def _calibration(name: str, matched: str) -> Family:
    described = {
        "ECE": "expected calibration error: mean |score - precision| at IoU 0.5, in 20 bins of the score",
        **{f"ECE{letter}": f"ECE of {words}" for letter, words in GROUP_NAMES.items()},
    }
    metrics = tuple(
        Metric(name=one, description=words, higher_is_better=False, official=False) for one, words in described.items()
    )
    return Family(
        name=f"{name}_calibration",
        title=f"{matched} calibration error",
        metrics=metrics,
        headline="ECE",
        columns=(tuple(described),),
        note="ECE, the expected calibration error of scores at IoU 0.5, is no part of the official protocol",
    )


def _errors(name: str, matched: str) -> Family:
    described = {kind: f"AP50 lost to errors of the kind {kind}" for kind in ERROR_KINDS}
    described |= {
        f"{kind}_{letter}": f"the same, {words}" for kind in ERROR_KINDS for letter, words in GROUP_NAMES.items()
    }
    metrics = tuple(
        Metric(name=one, description=words, higher_is_better=False, official=False) for one, words in described.items()
    )
    return Family(
        name=f"{name}_errors",
        title=f"{matched} errors, AP50 that each kind costs",
        metrics=metrics,
        headline="classification",
        columns=(ERROR_KINDS,),
        note="errors by kind as TIDE defines them (Bolya et al., 2020), at IoU 0.5: no part of the official protocol",
    )


def _families() -> Iterable[Family]:
    for build in (_protocol, _fixed, _pool, _recall, _calibration, _errors):
        for name, matched in _MATCHED.items():
            yield build(name, matched)


def _frequency_groups(settings: Mapping[str, Any]) -> str:
    """Where the groups are from and by what limits; a test notes it unless the test set itself states its groups."""
    if "frequency" in settings:
        return f"frequency groups: {settings['frequency']}"
    if settings.get("protocol") != "lvis":
        return ""
    return "frequency groups: as the test set states them (LVIS: rare <= 10 < common <= 100 < frequent training images)"


METRICS = MetricTable(
    families=tuple(_families()),
    conditions=("protocol", "max_detections"),
    remark=_frequency_groups,
    observations=("boxes_outside_their_image", "images_without_detections", "detections_cut_per_image"),
)
