"""Extents, areas and lengths of all polygons of a json at once, in bounded memory.

Shapes: M = annotations, R = rings (polygons) of all of them, (R,) points per ring; coordinates are flat x, y, x, y, ...
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cvpods_ext.data.annotations import ragged

_POINTS_AT_ONCE = 1 << 18


def ring_extents(points: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """(R, 4) float64 XYXY around each ring; NaN where one of its coordinates is NaN."""
    extents = np.zeros((len(points), 4))
    starts = ragged.starts_of(points)
    first = 0
    while first < len(points):
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _POINTS_AT_ONCE, side="right")) - 1)
        vertices = np.asarray(coordinates[2 * starts[first] : 2 * starts[last]]).reshape(-1, 2)
        at = starts[first:last] - starts[first]
        with np.errstate(invalid="ignore"):
            extents[first:last, :2] = np.minimum.reduceat(vertices, at)
            extents[first:last, 2:] = np.maximum.reduceat(vertices, at)
        first = last
    return extents


def annotation_extents(rings: np.ndarray, extents: np.ndarray) -> np.ndarray:
    """(M,) rings per annotation, (R, 4) -> (M, 4) XYXY around all rings of each; NaN where there is none, or a NaN."""
    found = np.full((len(rings), 4), np.nan)
    some = np.flatnonzero(rings)
    if len(some):
        starts = ragged.starts_of(rings)[some]
        with np.errstate(invalid="ignore"):
            found[some, :2] = np.minimum.reduceat(extents[:, :2], starts)
            found[some, 2:] = np.maximum.reduceat(extents[:, 2:], starts)
    return found


def polygon_areas(columns: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """(len(rows),) areas enclosed by the rings of the annotations `rows`, by the shoelace formula."""
    return _per_annotation(columns, rows, lambda p, n: (p[:, 0] * n[:, 1] - n[:, 0] * p[:, 1]) / 2, absolute=True)


def outline_lengths(columns: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    """(len(rows),) pixels along all rings of the annotations `rows`."""
    return _per_annotation(columns, rows, lambda p, n: np.hypot(*(n - p).T), absolute=False)


def _per_annotation(columns: Mapping[str, np.ndarray], rows: np.ndarray, of_edges, absolute: bool) -> np.ndarray:
    """Sums of what `of_edges` gives for each edge, over each ring (its absolute value, if asked), then each row."""
    sums = np.zeros(len(rows))
    ring_starts, point_starts = ragged.starts_of(columns["rings"]), ragged.starts_of(columns["points"])
    for at, row in enumerate(rows.tolist()):
        for ring in range(ring_starts[row], ring_starts[row + 1]):
            flat = columns["coordinates"][2 * point_starts[ring] : 2 * point_starts[ring + 1]]
            vertices = np.asarray(flat).reshape(-1, 2)
            total = float(of_edges(vertices, np.roll(vertices, -1, axis=0)).sum())
            sums[at] += abs(total) if absolute else total
    return sums


def box_ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, 4), (N, 4) XYXY -> (N,) IoU of each pair; 0 where one of them is empty or not a number."""
    corner = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    common = np.prod(np.maximum(corner, 0), axis=1)
    union = sum(np.prod(np.maximum(box[:, 2:] - box[:, :2], 0), axis=1) for box in (first, second)) - common
    return np.divide(common, union, out=np.zeros(len(first)), where=union > 0)
