"""The most telling mistakes of every category, with their kind by `evaluation.errors` and what belongs to them.

Only what is shown is read: the match table says which rows of which shards that is. Shapes: K = categories.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from cvpods_ext.evaluation.detection.detections import DetectionTable, read_rows
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.match_table import Judged, MatchTable, Objects
from cvpods_ext.evaluation.detection.per_category import AT_HALF
from cvpods_ext.evaluation.detection.protocol import needs_masks
from cvpods_ext.evaluation.detection.tide import KINDS, classify

ERRORS = (*KINDS, "missed")


@dataclass(frozen=True)
class Mistake:
    """One false positive or one missed object.

    `category` and `image` are positions in the ground truth; `annotation` is a row there and `detection` one of
    `Evidence.table`, -1 where there is none: what was annotated and what was predicted at that place.
    """

    kind: Literal["false positive", "false negative"]
    error: str
    category: int
    image: int
    annotation: int
    detection: int


@dataclass(frozen=True)
class Evidence:
    """Mistakes and the few detections that they show."""

    mistakes: list[Mistake]
    table: DetectionTable


@dataclass(frozen=True)
class Judgement:
    """What became of one run's detections, which lie in `folder`.

    `gt` holds the annotations that count (`evaluation.selection.select_annotations`), since the match table's rows of
    objects are its rows.
    """

    gt: GroundTruth
    folder: Path
    matches: MatchTable
    task: str

    @cached_property
    def wrong(self) -> tuple[np.ndarray, np.ndarray]:
        """False positives at IoU 0.5 (rows of the match table) by category and falling score, and where each category
        starts (K + 1,).
        """
        judged = self.matches.judged
        rows = np.flatnonzero((judged.misses & AT_HALF) > 0)
        return rows, np.searchsorted(judged.category[rows], np.arange(self.gt.num_categories + 1))

    @cached_property
    def unfound(self) -> tuple[np.ndarray, np.ndarray]:
        """Objects that nothing matched at IoU 0.5 by category and falling area, and where each category starts."""
        judged, objects = self.matches.judged, self.matches.objects
        found = np.zeros(len(objects.image), dtype=bool)
        found[judged.partner[(judged.hits & AT_HALF) > 0]] = True
        rows = np.flatnonzero(((objects.counted & AT_HALF) > 0) & ~found)
        rows = rows[np.lexsort((-objects.area[rows], objects.category[rows]))]
        return rows, np.searchsorted(objects.category[rows], np.arange(self.gt.num_categories + 1))


def mistake_counts(judgement: Judgement, per_kind: int) -> np.ndarray:
    """(K,) how many mistakes `evidence` would show of each category."""
    (_, wrong_starts), (_, unfound_starts) = judgement.wrong, judgement.unfound
    return np.minimum(np.diff(wrong_starts), per_kind) + np.minimum(np.diff(unfound_starts), per_kind)


def evidence(judgement: Judgement, categories: Iterable[int], per_kind: int) -> Evidence:
    """For each of `categories` the `per_kind` best scored false positives and largest objects that were not found.

    An object that was not found is shown with the best scored false positive that points at it, if there is one.
    """
    judged, objects = judgement.matches.judged, judgement.matches.objects
    categories = list(categories)
    wrong, unfound = (_first(*ranked, categories, per_kind) for ranked in (judgement.wrong, judgement.unfound))
    images = np.union1d(judged.image[wrong], objects.image[unfound])
    errors = classify(judgement.gt, judgement.folder, judgement.matches, judgement.task, images)
    # the last assignment, of the highest score, stays
    pointing = np.flatnonzero(errors.target >= 0)
    pointing = pointing[np.argsort(judged.score[pointing], kind="stable")]
    culprit = np.full(len(objects.image), -1)
    culprit[errors.target[pointing]] = pointing
    shown = np.concatenate((wrong, culprit[unfound]))
    rows, place = np.unique(judged.row[shown[shown >= 0]], return_inverse=True)
    detection = np.full(len(shown), -1)
    detection[shown >= 0] = place
    mistakes = [
        Mistake("false positive", KINDS[errors.kind[row]], *_place(judged, row), int(errors.near[row]), at)
        for row, at in zip(wrong.tolist(), detection.tolist(), strict=False)
    ]
    for row, by, at in zip(unfound.tolist(), culprit[unfound].tolist(), detection[len(wrong) :].tolist(), strict=True):
        error = "missed" if by < 0 else KINDS[errors.kind[by]]
        mistakes.append(Mistake("false negative", error, *_place(objects, row), row, at))
    return Evidence(mistakes, read_rows(judgement.folder, rows, masks=needs_masks(judgement.task)))


def _first(rows: np.ndarray, starts: np.ndarray, categories: Iterable[int], count: int) -> np.ndarray:
    """The first `count` rows of each category."""
    parts = [rows[starts[category] : starts[category + 1]][:count] for category in categories]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _place(table: Judged | Objects, row: int) -> tuple[int, int]:
    return int(table.category[row]), int(table.image[row])
