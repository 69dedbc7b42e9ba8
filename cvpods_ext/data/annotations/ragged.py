"""Ragged arrays as flat values plus row lengths: how variable-length annotation fields are held without objects."""

from __future__ import annotations

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
