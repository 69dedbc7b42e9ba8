"""What LVIS and COCO evaluation share: thresholds, area ranges, and the means that a table shows.

Shapes: T = 10 IoU thresholds, R = 101 recall points, K = categories by sorted id, A = 4 area ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TASKS = ("bbox", "segm", "boundary")  # boundary: masks, matched by the smaller of mask IoU and boundary IoU

Metrics = dict[str, float | None]  # percent; None where the group has no ground truth

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALL_POINTS = np.linspace(0.0, 1.0, 101)
AREA_NAMES = ("all", "small", "medium", "large")
AREA_RANGES = np.array([[0, 1e10], [0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, 1e10]])  # pixels, both ends included
GROUPS = ("r", "c", "f")  # rare: at most 10 training images, common: at most 100, frequent: more


def needs_masks(task: str) -> bool:
    """Whether detections and annotations must be read with their masks."""
    return task != "bbox"


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
