"""Ragged arrays as flat values plus row lengths: how variable-length annotation fields are held without objects."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """(N,) lengths -> (N + 1,) int64 positions, the last one being the total."""
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def positions(starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Where the values of `rows` lie, row after row, in the flat array that `starts` (N + 1,) divides."""
    lengths = starts[rows + 1] - starts[rows]
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts[rows] - ends + lengths, lengths)


@dataclass(frozen=True)
class Polygons:
    """Polygons of N instances, laid out as in `structures.PolygonMasks`, for readers that do without torch.

    vertices (V, 2) x, y in pixels; polygon_starts (P + 1,) into vertices; instance_starts (N + 1,) into polygons.
    """

    vertices: np.ndarray
    polygon_starts: np.ndarray
    instance_starts: np.ndarray

    def take(self, rows: np.ndarray) -> Polygons:
        """The instances at `rows`, in that order."""
        polygons = positions(self.instance_starts, rows)
        return Polygons(
            vertices=self.vertices[positions(self.polygon_starts, polygons)],
            polygon_starts=starts_of(np.diff(self.polygon_starts)[polygons]),
            instance_starts=starts_of(np.diff(self.instance_starts)[rows]),
        )

    def rings(self, instance: int) -> list[np.ndarray]:
        """The polygons of one instance, each flat as in a json: x, y, x, y, ..."""
        first, last = self.instance_starts[instance : instance + 2]
        bounds = self.polygon_starts[first : last + 1].tolist()
        return [self.vertices[start:stop].reshape(-1) for start, stop in itertools.pairwise(bounds)]


def join(parts: list[Polygons]) -> Polygons:
    """The instances of all parts, one after the other."""
    return Polygons(
        vertices=np.concatenate([part.vertices for part in parts]),
        polygon_starts=starts_of(np.concatenate([np.diff(part.polygon_starts) for part in parts])),
        instance_starts=starts_of(np.concatenate([np.diff(part.instance_starts) for part in parts])),
    )
