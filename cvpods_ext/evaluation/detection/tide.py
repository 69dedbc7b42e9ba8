"""Why detections are wrong and what each kind of error costs, after TIDE (Bolya et al., ECCV 2020, section 2.2).

At IoU 0.5, a false positive is a classification error (it overlaps an object of another category by 0.5), a
localisation error (one of its own by 0.1 to 0.5), both (one of another category by 0.1 to 0.5), a duplicate (one of its
own by 0.5, but that is taken), or background. An object that no detection finds, and that no classification or
localisation error points at, is missed. The cost is the AP50 that would be gained if an oracle mended that kind alone.
Only evaluated detections count: in a federated set the others are neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cvpods_ext.evaluation.detection.detections import read_shard
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.iou import detection_shapes, overlapping_pairs
from cvpods_ext.evaluation.detection.match_shards import blocks
from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.metrics import ERROR_KINDS
from cvpods_ext.evaluation.detection.precision_recall import curves
from cvpods_ext.evaluation.detection.protocol import GROUPS, Metrics, mean_where_annotated, needs_masks
from cvpods_ext.evaluation.detection.shards import read_shard_metadata, shard_files

KINDS = ERROR_KINDS[:-1]  # of false positives; the last one is of objects
HIT, GRAZE = 0.5, 0.1  # IoU
AT_HALF = np.uint64(1)  # bit of IoU 0.5 over all areas
_MENDED_INTO_HITS = (0, 1)  # kinds whose oracle turns a detection into a true positive of its target


@dataclass(frozen=True)
class Errors:
    """kind (N,) int8 position in KINDS of every false positive of the match table, -1 for other detections; near (N,)
    int32 the object whose overlap decided the kind, -1 for none; missed (A,) bool.
    """

    kind: np.ndarray
    near: np.ndarray
    missed: np.ndarray

    @property
    def target(self) -> np.ndarray:
        """(N,) the object that a classification or localisation error points at, -1 for other detections."""
        return np.where(np.isin(self.kind, _MENDED_INTO_HITS), self.near, -1)

    def counts(self, table: MatchTable) -> dict[str, dict[str, int]]:
        """How many errors of each kind, "missed" included, in all categories and in each frequency group."""
        group, object_group = table.frequency[table.evaluated.category], table.frequency[table.objects.category]
        result = {}
        for name, members in (("all", range(len(GROUPS))), *((g, (k,)) for k, g in enumerate(GROUPS))):
            inside, object_inside = np.isin(group, members), np.isin(object_group, members)
            result[name] = {kind: int(((self.kind == k) & inside).sum()) for k, kind in enumerate(KINDS)}
            result[name]["missed"] = int((self.missed & object_inside).sum())
        return result


def classify(gt: GroundTruth, folder: Path, table: MatchTable, task: str, images: np.ndarray | None = None) -> Errors:
    """Classify every false positive of `table`, which was made of `folder` and of the annotations `gt`.

    `gt` are the annotations that count (`selection.select_annotations`). The shards are read once more. With `images`
    (positions) only what is on them is classified, and nothing else is called missed.
    """
    evaluated = table.evaluated
    here = np.ones(len(gt.image_ids), dtype=bool) if images is None else np.isin(np.arange(len(gt.image_ids)), images)
    wrong = np.flatnonzero(((evaluated.misses & AT_HALF) > 0) & here[evaluated.image])
    best = {name: np.zeros(len(evaluated)) for name in ("own", "other")}
    target = {name: np.full(len(evaluated), -1, dtype=np.int32) for name in ("own", "other")}
    for rows, objects, ious in _overlaps_in_image(gt, folder, table, wrong, task):
        same = gt.categories[objects] == evaluated.category[rows]
        for name, pairs in (("own", same), ("other", ~same)):
            order = np.argsort(ious[pairs], kind="stable")  # the last assignment, of the highest IoU, stays
            at, values = rows[pairs][order], ious[pairs][order]
            best[name][at] = values
            target[name][at] = objects[pairs][order]
    own, other = best["own"][wrong], best["other"][wrong]
    kind = np.full(len(evaluated), -1, dtype=np.int8)
    conditions = [own >= HIT, other >= HIT, own >= GRAZE, other >= GRAZE]
    kind[wrong] = np.select(conditions, [3, 0, 1, 2], default=4)
    near = np.select([np.isin(kind, (1, 3)), np.isin(kind, (0, 2))], [target["own"], target["other"]], default=-1)
    found = np.zeros(len(gt.images), dtype=bool)
    found[evaluated.partner[evaluated.partner >= 0]] = True
    found[near[np.isin(kind, _MENDED_INTO_HITS)]] = True
    missed = ~found & ((table.objects.counted & AT_HALF) > 0) & here[gt.images]
    return Errors(kind, near, missed)


def _overlaps_in_image(
    gt: GroundTruth, folder: Path, table: MatchTable, wrong: np.ndarray, task: str
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(rows of the match table, annotations, IoUs) of the `wrong` detections with all objects of their image."""
    one_category = replace(gt, categories=np.zeros_like(gt.categories), category_ids=np.zeros(1, dtype=np.int64))
    wrong = wrong[np.argsort(table.evaluated.row[wrong])]
    before = 0
    for path in shard_files(folder):
        after = before + read_shard_metadata(path).rows
        here = wrong[slice(*np.searchsorted(table.evaluated.row[wrong], (before, after)))]
        if not len(here):
            before = after
            continue
        here = here[np.argsort(table.evaluated.image[here], kind="stable")]
        shard = read_shard(path, masks=needs_masks(task))
        for block in blocks(table.evaluated.image[here]):
            rows = here[block]
            found = detection_shapes(gt, shard.take(table.evaluated.row[rows] - before), task)
            pairs = overlapping_pairs(one_category, table.evaluated.image[rows].astype(np.int64), found, GRAZE)
            yield rows[pairs.detections], pairs.annotations, pairs.ious
        before = after


def costs(table: MatchTable, errors: Errors) -> dict[str, Metrics]:
    """Gain in AP50, in percent, by kind ("missed" included): {"all": ..., "r": ..., "c": ..., "f": ...}.

    The oracle turns the best classification or localisation error of an object that was not found into its true
    positive (in the object's category), and removes the others; other false positives are removed; missed objects are
    no longer asked for.
    """
    before = _ap50(table)
    result: dict[str, Metrics] = {}
    for kind, name in enumerate(ERROR_KINDS):
        after = _ap50(_mended(table, errors, kind))
        result[name] = {group: _gain(value, after[group]) for group, value in before.items()}
    return result


def _gain(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _ap50(table: MatchTable) -> Metrics:
    precision = curves(table.evaluated, table.objects, table.num_categories, thresholds=1, areas=1).precision[0, ..., 0]
    groups = {name: mean_where_annotated(precision[:, table.frequency == k]) for k, name in enumerate(GROUPS)}
    return {"all": mean_where_annotated(precision), **groups}


def _mended(table: MatchTable, errors: Errors, kind: int) -> MatchTable:
    evaluated, objects = table.evaluated, table.objects
    if kind == len(KINDS):
        return replace(table, objects=replace(objects, counted=np.where(errors.missed, np.uint64(0), objects.counted)))
    affected = errors.kind == kind
    misses = np.where(affected, np.uint64(0), evaluated.misses)
    if kind not in _MENDED_INTO_HITS:
        return replace(table, evaluated=replace(evaluated, misses=misses))
    free = np.ones(len(objects.image), dtype=bool)
    free[evaluated.partner[evaluated.partner >= 0]] = False
    target = errors.target
    rows = np.flatnonzero(affected & (target >= 0))
    rows = rows[free[target[rows]] & ((objects.counted[target[rows]] & AT_HALF) > 0)]
    rows = rows[np.argsort(-evaluated.score[rows], kind="stable")]
    best = rows[np.unique(target[rows], return_index=True)[1]]
    hits, category = evaluated.hits.copy(), evaluated.category.copy()
    hits[best] |= AT_HALF
    category[best] = objects.category[target[best]]
    moved = replace(evaluated, hits=hits, misses=misses, category=category)
    return replace(table, evaluated=moved.take(np.lexsort((-moved.score, moved.category))))
