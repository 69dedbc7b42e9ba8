"""How far AP would move if the split had been another one: images and categories are drawn again, with replacement.

Rare groups rest on categories that are seen in a single image, so resampling images alone says little about them; and
two models are compared on the same draws, since most of the variation is common to both.
Shapes: B = resamples, I = images, K = categories, T = IoU thresholds, U = detections that are a true positive at some
threshold.
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import sparse, stats

from cvpods_ext.evaluation.detection.match_table import MatchTable
from cvpods_ext.evaluation.detection.protocol import RECALL_POINTS

_ROUNDING = 1e-4  # of 100 * recall in float32
_ABOVE_HUNDREDTH = (np.arange(101) / 100 < RECALL_POINTS).astype(np.float32)
_RESAMPLES_AT_ONCE = 250  # keeps the arrays of a category within the processor's cache


@dataclass(frozen=True)
class Draws:
    """How often each resample contains each image, (B, I), and each category, (B, K); the groups keep their sizes."""

    images: np.ndarray
    categories: np.ndarray


def draw(num_images: int, frequency: np.ndarray, resamples: int = 1000, seed: int = 0) -> Draws:
    """Draw with replacement; `frequency` (K,) are the groups, within which categories are drawn."""
    rng = np.random.default_rng(seed)
    images = _counts(rng, resamples, num_images)
    categories = np.zeros((resamples, len(frequency)), dtype=np.float32)
    for group in np.unique(frequency):
        members = np.flatnonzero(frequency == group)
        categories[:, members] = _counts(rng, resamples, len(members))
    return Draws(images, categories)


def _counts(rng: np.random.Generator, resamples: int, size: int) -> np.ndarray:
    """(B, size) multinomial counts of `size` draws, float32."""
    if size == 0:
        return np.zeros((resamples, 0), dtype=np.float32)
    rows = [np.bincount(rng.integers(0, size, size), minlength=size) for _ in range(resamples)]
    return np.stack(rows).astype(np.float32)


def resampled_aps(table: MatchTable, images: np.ndarray) -> np.ndarray:
    """(B, I) image counts -> (B, K) AP of every category in percent, NaN where no annotation was drawn.

    An image that is drawn twice counts twice: all its detections and objects weigh two. Precision and recall are then
    weighted sums down the ranking. False positives between two true positives only matter by their weight, which one
    sparse product gives for all resamples.
    """
    pieces = _Pieces.of(table)
    result = np.full((len(images), table.num_categories), np.nan)
    workers = len(os.sched_getaffinity(0))
    for start in range(0, len(images), _RESAMPLES_AT_ONCE):
        weights = np.ascontiguousarray(images[start : start + _RESAMPLES_AT_ONCE].T)  # (I, B)
        with ThreadPoolExecutor(workers) as pool:
            aps = list(pool.map(partial(_category_aps, pieces, weights), range(table.num_categories)))
        result[start : start + _RESAMPLES_AT_ONCE] = np.stack(aps, axis=1)
    return 100.0 * result


@dataclass(frozen=True)
class _Pieces:
    """The match table cut at the detections that are not an error at every threshold.

    image (U,); hits and evaluated (U, T) bool, evaluated being right or wrong; starts (K + 1,) of categories; `between`
    (U, I) counts plain errors of each image since the U before; object_image by category, object_starts (K + 1,).
    """

    image: np.ndarray
    hits: np.ndarray
    evaluated: np.ndarray
    starts: np.ndarray
    between: sparse.csr_matrix
    object_image: np.ndarray
    object_starts: np.ndarray

    @classmethod
    def of(cls, table: MatchTable) -> _Pieces:
        evaluated, count = table.evaluated, np.arange(table.num_categories + 1)
        all_areas = table.criteria.area_bits[0]
        hits, misses = evaluated.hits & all_areas, evaluated.misses & all_areas
        plain = misses == all_areas
        special = np.flatnonzero(~plain & ((hits | misses) != 0))
        after = np.searchsorted(special, np.flatnonzero(plain))  # the next special detection in the ranking
        errors = np.flatnonzero(plain)[after < len(special)]
        after = after[after < len(special)]
        same = (
            evaluated.category[errors] == evaluated.category[special[after]]
        )  # else behind the last one of its category
        shape = (len(special), len(table.image_ids))
        ones = np.ones(int(same.sum()), dtype=np.float32)
        between = sparse.csr_matrix((ones, (after[same], evaluated.image[errors[same]])), shape=shape)
        bits = np.arange(len(table.criteria.thresholds), dtype=np.uint64)
        counted = np.flatnonzero(table.objects.counted & np.uint64(1))
        by_category = counted[np.argsort(table.objects.category[counted], kind="stable")]
        return cls(
            image=evaluated.image[special],
            hits=((hits[special, None] >> bits) & np.uint64(1)).astype(bool),
            evaluated=(((hits | misses)[special, None] >> bits) & np.uint64(1)).astype(bool),
            starts=np.searchsorted(evaluated.category[special], count),
            between=between,
            object_image=table.objects.image[by_category],
            object_starts=np.searchsorted(table.objects.category[by_category], count),
        )


def _category_aps(pieces: _Pieces, weights: np.ndarray, category: int) -> np.ndarray:
    """(I, B) -> (B,) AP of one category in [0, 1]."""
    objects = pieces.object_image[pieces.object_starts[category] : pieces.object_starts[category + 1]]
    total = weights[objects].sum(axis=0)  # (B,)
    rows = slice(pieces.starts[category], pieces.starts[category + 1])
    if len(objects) == 0 or rows.start == rows.stop:
        return np.where(total > 0, 0.0, np.nan)
    own = weights[pieces.image[rows]]  # (U, B)
    plain = np.cumsum(pieces.between[rows] @ weights, axis=0)
    all_evaluated = plain + np.cumsum(own, axis=0)
    points_per_object = 100.0 / np.maximum(total, 1.0)
    area = np.zeros(weights.shape[1])
    thresholds = pieces.hits.shape[1]
    for threshold in range(thresholds):
        hits = pieces.hits[rows, threshold]
        evaluated, at = pieces.evaluated[rows, threshold], np.flatnonzero(hits)
        ranked = all_evaluated if evaluated.all() else plain + np.cumsum(own * evaluated[:, None], axis=0)
        right = np.cumsum(own[at], axis=0)
        precision = right / np.maximum(ranked[at], 1.0)
        np.maximum.accumulate(precision[::-1], axis=0, out=precision[::-1])
        reached = _recall_points_reached(right * points_per_object)
        area += np.einsum("ub,ub->b", precision, np.diff(reached, axis=0, prepend=0))
    return np.where(total > 0, area / (thresholds * 101), np.nan)


def _recall_points_reached(hundredths: np.ndarray) -> np.ndarray:
    """Recall times 100 -> how many of the 101 recall points it reaches; none without a true positive.

    Some points lie a rounding error above their hundredth, so a recall of exactly that misses them, as in `curves`.
    """
    points = np.floor(hundredths + _ROUNDING)
    close = np.nonzero(hundredths - points < _ROUNDING)
    missed = _ABOVE_HUNDREDTH[points[close].astype(np.int64)]
    points += hundredths > 0
    points[close] -= missed
    return points


def group_means(aps: np.ndarray, frequency: np.ndarray, categories: np.ndarray | None = None) -> np.ndarray:
    """(B, K) AP by category -> (B, 4) AP, APr, APc, APf; `categories` (B, K) are the counts of drawn categories."""
    weights = np.isfinite(aps) * (1.0 if categories is None else categories)
    values = np.nan_to_num(aps) * weights
    groups = [np.ones(len(frequency), dtype=bool), *(frequency == group for group in range(3))]
    with np.errstate(invalid="ignore"):
        return np.stack([values[:, g].sum(axis=1) / weights[:, g].sum(axis=1) for g in groups], axis=1)


def resampled_means(
    aps: np.ndarray, point: np.ndarray, frequency: np.ndarray, categories: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(B, K) AP on drawn images, (K,) measured AP, (B, K) drawn categories -> (B, 4) means and (4,) factors of spread.

    The means are over drawn images and drawn categories. Their spread is too large: what differs by image within a
    category is counted three times (Owen, "The pigeonhole bootstrap", 2007). With the variances Vi, Vc, Vb of drawing
    images, categories and both, that part is Vb - Vi - Vc, so the variance of the measured value is 2 Vi + 2 Vc - Vb.
    The factors hold this and the correction for groups of few categories.
    """
    by_images = group_means(aps, frequency)
    by_categories = group_means(np.broadcast_to(point, aps.shape), frequency, categories)
    by_both = group_means(aps, frequency, categories)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a group without annotations is all NaN
        images, drawn, both = (np.nanvar(means, axis=0) for means in (by_images, by_categories, by_both))
    variance = np.clip(2 * images + 2 * drawn - both, np.maximum(images, drawn), np.maximum(both, images))
    known = np.isfinite(point)
    count = np.array([known.sum(), *(known[frequency == group].sum() for group in range(3))])
    return by_both, _small_sample(count) * np.sqrt(np.divide(variance, both, out=np.ones_like(both), where=both > 0))


def _small_sample(count: np.ndarray) -> np.ndarray:
    """Factor by which percentile intervals of so few categories are too narrow (Hesterberg 2015, section 5.2)."""
    count = np.maximum(count, 2)
    return np.sqrt(count / (count - 1)) * stats.t.ppf(0.975, count - 1) / stats.norm.ppf(0.975)
