"""What LVIS and COCO evaluation share: thresholds, area ranges, and the means that a table shows.

Shapes: T = 10 IoU thresholds, R = 101 recall points, K = categories by sorted id, A = 4 area ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cvpods_ext.config.detection_protocol import COCO
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.detection.metrics import GROUP_NAMES

Metrics = dict[str, float | None]  # percent; None where the group has no ground truth

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREA_NAMES = ("all", "small", "medium", "large")
LARGEST_AREA = 1e10  # pixels
_MEDIUM, _LARGE = COCO.areas  # LVIS's are the same
AREA_RANGES = ((0.0, LARGEST_AREA), (0.0, _MEDIUM), (_MEDIUM, _LARGE), (_LARGE, LARGEST_AREA))  # ends included
GROUPS = tuple(GROUP_NAMES)  # rare: at most 10 training images, common: at most 100, frequent: more


@dataclass(frozen=True)
class Criteria:
    """When a detection is right: IoU thresholds, ascending in (0, 1], and area ranges in pixels, both ends included.

    Their combinations are bits of one uint64, bit = area * number of thresholds + threshold, so there are at most 64.
    Whatever a table shows "over all areas" is over the first range. ConfigError for thresholds or ranges that are none.
    """

    thresholds: tuple[float, ...] = tuple(IOU_THRESHOLDS.tolist())
    areas: tuple[tuple[float, float], ...] = AREA_RANGES

    def __post_init__(self) -> None:
        ascending = list(self.thresholds) == sorted(set(self.thresholds))
        if not self.thresholds or not ascending or not 0 < self.thresholds[0] <= self.thresholds[-1] <= 1:
            raise ConfigError(f"IoU thresholds must be different, ascending and in (0, 1], got {list(self.thresholds)}")
        for low, high in self.areas:
            if not 0 <= low < high <= LARGEST_AREA:
                raise ConfigError(
                    f"an area range is 0 <= low < high <= {LARGEST_AREA:.0e} pixels, got {low:g} {high:g}"
                )
        if len(self.thresholds) * len(self.areas) > 64:
            raise ConfigError(f"{len(self.thresholds)} IoU thresholds in {len(self.areas)} area ranges exceed 64")

    def __str__(self) -> str:
        if self == OFFICIAL:
            return "official"
        areas = "_".join(f"{low:g}-{high:g}" for low, high in self.areas)
        return f"iou_{'_'.join(f'{threshold:g}' for threshold in self.thresholds)}-area_{areas}"

    def describe(self) -> str:
        """Words for the title of a table."""
        ious = " ".join(f"{threshold:.2f}".rstrip("0") for threshold in self.thresholds)
        ranges = ("all sizes" if area == AREA_RANGES[0] else f"area {area[0]:g} to {area[1]:g}" for area in self.areas)
        return f"IoU {ious}, {', '.join(ranges)}"

    @cached_property
    def area_bits(self) -> np.ndarray:
        """(A,) uint64, for each area range the bits of all thresholds."""
        count = len(self.thresholds)
        return np.array([((1 << count) - 1) << (count * area) for area in range(len(self.areas))], dtype=np.uint64)

    @cached_property
    def every(self) -> np.uint64:
        """All bits."""
        return np.bitwise_or.reduce(self.area_bits)


OFFICIAL = Criteria()


def iou_type(family: str) -> str:
    """What a family of metrics matches by: bbox, segm, or boundary (the smaller of mask IoU and boundary IoU)."""
    return family.partition("_")[0]


def needs_masks(family: str) -> bool:
    """Whether detections and annotations must be read with their masks."""
    return iou_type(family) != "bbox"


@dataclass(frozen=True)
class Curves:
    """Precision at fixed recall, (T, R, K, A), and the highest recall, (T, K, A); -1 where nothing was annotated."""

    precision: np.ndarray
    recall: np.ndarray


def mean_where_annotated(values: np.ndarray) -> float | None:
    """Mean in percent of the entries that are not -1; None if there are none."""
    annotated = values[values > -1]
    return 100.0 * float(annotated.mean()) if annotated.size else None


def summarise(curves: Curves, frequency: np.ndarray) -> Metrics:
    """The thirteen numbers of an LVIS table; `frequency` (K,) holds positions in GROUPS."""
    precision, recall = curves.precision, curves.recall
    metrics: Metrics = {"AP": mean_where_annotated(precision[..., 0])}
    metrics["AP50"] = mean_where_annotated(precision[0, ..., 0])
    metrics["AP75"] = mean_where_annotated(precision[5, ..., 0])
    for area, name in enumerate(AREA_NAMES[1:], start=1):
        metrics[f"AP{name[0]}"] = mean_where_annotated(precision[..., area])
    for group, name in enumerate(GROUPS):
        metrics[f"AP{name}"] = mean_where_annotated(precision[:, :, frequency == group, 0])
    metrics["AR"] = mean_where_annotated(recall[..., 0])
    for area, name in enumerate(AREA_NAMES[1:], start=1):
        metrics[f"AR{name[0]}"] = mean_where_annotated(recall[..., area])
    return metrics


def coco_recalls(recall_at_1: np.ndarray, recall_at_10: np.ndarray) -> Metrics:
    """What COCO reports besides: recall, (T, K) each, when only 1 or 10 detections per image and category count."""
    return {"AR1": mean_where_annotated(recall_at_1), "AR10": mean_where_annotated(recall_at_10)}
