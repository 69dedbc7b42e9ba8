"""The most telling mistakes of every category, with the reason that overlaps suggest.

The kinds of error follow TIDE (Bolya et al., ECCV 2020): overlap at least 0.5 with another category is
"classification", overlap in [0.1, 0.5) with the same one "localisation", with another one "both", a second detection
of a found object "duplicate", anything else "background"; an object that nothing explains is "missed".
Shapes: A = annotations, n = objects of one image, m = detections of one image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pycocotools.mask as coco_mask

from cvpods_ext.evaluation.detections import DetectionTable
from cvpods_ext.evaluation.ground_truth import GroundTruth
from cvpods_ext.evaluation.match_table import MatchTable
from cvpods_ext.evaluation.per_category import AT_HALF

ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
HIT, GRAZE = 0.5, 0.1  # IoU


@dataclass(frozen=True)
class Mistake:
    """One false positive or one missed object.

    `category` and `image` are positions in the ground truth; `annotation` and `detection` are rows there and in the
    detection table, -1 where there is none: what was annotated and what was predicted at that place.
    """

    kind: Literal["false positive", "false negative"]
    error: str
    category: int
    image: int
    annotation: int
    detection: int


@dataclass(frozen=True)
class Judgement:
    """One experiment's detections and what became of them.

    `gt` holds the annotations that count (`evaluation.selection.select_annotations`), since the match table's rows of
    objects are its rows.
    """

    gt: GroundTruth
    table: DetectionTable
    matches: MatchTable
    task: str

    @cached_property
    def detections_by_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the table by image and falling score, and where each image starts."""
        images = np.searchsorted(self.gt.image_ids, self.table.image_ids)
        rows = np.lexsort((-self.table.scores, images))
        return rows, np.searchsorted(images[rows], np.arange(len(self.gt.image_ids) + 1))

    @cached_property
    def annotations_by_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the annotations by image, and where each image starts."""
        rows = np.argsort(self.gt.images, kind="stable")
        return rows, np.searchsorted(self.gt.images[rows], np.arange(len(self.gt.image_ids) + 1))

    @cached_property
    def found(self) -> np.ndarray:
        """(A,) whether a detection of the right category matched the annotation at IoU 0.5."""
        found = np.zeros(len(self.gt.images), dtype=bool)
        judged = self.matches.judged
        found[judged.partner[(judged.hits & AT_HALF) > 0]] = True
        return found

    @cached_property
    def errors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """At IoU 0.5: false positives by category and falling score, where each category starts (K + 1,), then missed
        objects by category and falling area, and where each category starts.
        """
        judged, objects = self.matches.judged, self.matches.objects
        categories = np.arange(self.gt.num_categories + 1)
        wrong = np.flatnonzero((judged.misses & AT_HALF) > 0)
        missed = np.flatnonzero(((objects.counted & AT_HALF) > 0) & ~self.found)
        missed = missed[np.lexsort((-objects.area[missed], objects.category[missed]))]
        starts = (np.searchsorted(column, categories) for column in (judged.category[wrong], objects.category[missed]))
        return wrong, next(starts), missed, next(starts)


def mistakes(judgement: Judgement, categories: Iterable[int], per_kind: int) -> list[Mistake]:
    """For each of `categories` the `per_kind` best scored false positives and largest missed objects."""
    wrong, wrong_starts, missed, missed_starts = judgement.errors
    result = []
    for category in categories:
        rows = wrong[wrong_starts[category] : wrong_starts[category + 1]][:per_kind]
        result += [_false_positive(judgement, int(row)) for row in rows]
        rows = missed[missed_starts[category] : missed_starts[category + 1]][:per_kind]
        result += [_false_negative(judgement, int(row)) for row in rows]
    return result


def mistake_counts(judgement: Judgement, per_kind: int) -> np.ndarray:
    """(K,) how many mistakes `mistakes` would return for each category."""
    _, wrong_starts, _, missed_starts = judgement.errors
    return np.minimum(np.diff(wrong_starts), per_kind) + np.minimum(np.diff(missed_starts), per_kind)


def _false_positive(judgement: Judgement, row: int) -> Mistake:
    judged = judgement.matches.judged
    image, category = int(judged.image[row]), int(judged.category[row])
    detection = int(judged.row[row])
    annotations = _of_image(judgement.annotations_by_image, image)
    overlap = _overlaps(judgement, np.array([detection]), annotations)[0]
    same = judgement.gt.categories[annotations] == category
    error, partner = "background", -1
    for name, eligible in (
        ("duplicate", same & (overlap >= HIT) & judgement.found[annotations]),
        ("classification", ~same & (overlap >= HIT)),
        ("localisation", same & (overlap >= GRAZE)),
        ("both", ~same & (overlap >= GRAZE)),
    ):
        if eligible.any():
            error, partner = name, int(annotations[np.argmax(np.where(eligible, overlap, -1))])
            break
    return Mistake("false positive", error, category, image, partner, detection)


def _false_negative(judgement: Judgement, annotation: int) -> Mistake:
    gt = judgement.gt
    image, category = int(gt.images[annotation]), int(gt.categories[annotation])
    detections = _of_image(judgement.detections_by_image, image)
    overlap = _overlaps(judgement, detections, np.array([annotation]))[:, 0]
    same = judgement.table.category_ids[detections] == gt.category_ids[category]
    for name, eligible in (
        ("classification", ~same & (overlap >= HIT)),
        ("localisation", same & (overlap >= GRAZE)),
    ):
        if eligible.any():  # rows are by falling score: the first eligible one is the most confident
            return Mistake("false negative", name, category, image, annotation, int(detections[np.argmax(eligible)]))
    return Mistake("false negative", "missed", category, image, annotation, -1)


def _of_image(index: tuple[np.ndarray, np.ndarray], image: int) -> np.ndarray:
    rows, starts = index
    return rows[starts[image] : starts[image + 1]]


def _overlaps(judgement: Judgement, detections: np.ndarray, annotations: np.ndarray) -> np.ndarray:
    """(m, n) IoU of masks or boxes, as the task demands."""
    if not len(detections) or not len(annotations):
        return np.zeros((len(detections), len(annotations)))
    found: Any
    truth: Any
    if judgement.task == "segm":
        found = judgement.table.take(detections).rles()
        truth = judgement.gt.rle_dicts(annotations)
    else:
        found = judgement.table.boxes[detections].astype(np.float64)
        truth = judgement.gt.boxes[annotations]
    return np.asarray(coco_mask.iou(found, truth, [0] * len(annotations)))
