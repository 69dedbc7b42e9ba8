"""Examples of the errors of every category, with their kind by `evaluation.detection.tide` and what belongs to them.

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
from cvpods_ext.evaluation.detection.match_table import Evaluated, MatchTable, Objects
from cvpods_ext.evaluation.detection.per_category import AT_HALF
from cvpods_ext.evaluation.detection.protocol import needs_masks
from cvpods_ext.evaluation.detection.tide import KINDS, classify


@dataclass(frozen=True)
class ErrorExample:
    """One false positive or one missed object.

    `category` and `image` are positions in the ground truth; `annotation` is a row there and `detection` one of
    `ErrorExamples.table`, -1 where there is none: what was annotated and what was predicted at that place.
    """

    kind: Literal["false positive", "false negative"]
    error: str
    category: int
    image: int
    annotation: int
    detection: int


@dataclass(frozen=True)
class ErrorExamples:
    """Examples and the few detections that they show."""

    examples: list[ErrorExample]
    table: DetectionTable


@dataclass(frozen=True)
class MatchedRun:
    """What became of one run's detections, which lie in `folder`, matched by boxes, masks or boundaries.

    `gt` holds the annotations that count (`selection.select_annotations`): the match table's objects are its rows.
    """

    gt: GroundTruth
    folder: Path
    matches: MatchTable
    matched_by: str

    @cached_property
    def wrong(self) -> tuple[np.ndarray, np.ndarray]:
        """False positives at IoU 0.5 (rows of the match table) by category and falling score, and where each category
        starts (K + 1,).
        """
        evaluated = self.matches.evaluated
        rows = np.flatnonzero((evaluated.misses & AT_HALF) > 0)
        return rows, np.searchsorted(evaluated.category[rows], np.arange(self.gt.num_categories + 1))

    @cached_property
    def unfound(self) -> tuple[np.ndarray, np.ndarray]:
        """Objects that nothing matched at IoU 0.5 by category and falling area, and where each category starts."""
        evaluated, objects = self.matches.evaluated, self.matches.objects
        found = np.zeros(len(objects.image), dtype=bool)
        found[evaluated.partner[(evaluated.hits & AT_HALF) > 0]] = True
        rows = np.flatnonzero(((objects.counted & AT_HALF) > 0) & ~found)
        rows = rows[np.lexsort((-objects.area[rows], objects.category[rows]))]
        return rows, np.searchsorted(objects.category[rows], np.arange(self.gt.num_categories + 1))


def example_counts(run: MatchedRun, per_kind: int) -> np.ndarray:
    """(K,) how many examples `error_examples` would show of each category."""
    (_, wrong_starts), (_, unfound_starts) = run.wrong, run.unfound
    return np.minimum(np.diff(wrong_starts), per_kind) + np.minimum(np.diff(unfound_starts), per_kind)


def error_examples(run: MatchedRun, categories: Iterable[int], per_kind: int) -> ErrorExamples:
    """For each of `categories` the `per_kind` best scored false positives and largest objects that were not found.

    An object that was not found is shown with the best scored false positive that points at it, if there is one.
    """
    evaluated, objects = run.matches.evaluated, run.matches.objects
    categories = list(categories)
    wrong, unfound = (_first(*ranked, categories, per_kind) for ranked in (run.wrong, run.unfound))
    images = np.union1d(evaluated.image[wrong], objects.image[unfound])
    errors = classify(run.gt, run.folder, run.matches, run.matched_by, images)
    # the last assignment, of the highest score, stays
    pointing = np.flatnonzero(errors.target >= 0)
    pointing = pointing[np.argsort(evaluated.score[pointing], kind="stable")]
    pointing_at = np.full(len(objects.image), -1)
    pointing_at[errors.target[pointing]] = pointing
    shown = np.concatenate((wrong, pointing_at[unfound]))
    rows, place = np.unique(evaluated.row[shown[shown >= 0]], return_inverse=True)
    detection = np.full(len(shown), -1)
    detection[shown >= 0] = place
    examples = [
        ErrorExample("false positive", KINDS[errors.kind[row]], *_place(evaluated, row), int(errors.near[row]), at)
        for row, at in zip(wrong.tolist(), detection.tolist(), strict=False)
    ]
    by_unfound = (unfound.tolist(), pointing_at[unfound].tolist(), detection[len(wrong) :].tolist())
    for row, by, at in zip(*by_unfound, strict=True):
        error = "missed" if by < 0 else KINDS[errors.kind[by]]
        examples.append(ErrorExample("false negative", error, *_place(objects, row), row, at))
    return ErrorExamples(examples, read_rows(run.folder, rows, masks=needs_masks(run.matched_by)))


def _first(rows: np.ndarray, starts: np.ndarray, categories: Iterable[int], count: int) -> np.ndarray:
    """The first `count` rows of each category."""
    parts = [rows[starts[category] : starts[category + 1]][:count] for category in categories]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _place(table: Evaluated | Objects, row: int) -> tuple[int, int]:
    return int(table.category[row]), int(table.image[row])
