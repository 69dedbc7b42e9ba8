"""COCO run-length masks from untrusted files: brought to compressed bytes only if they describe exactly one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

from cvpods_ext.data.annotations import policy


def compress(segmentation: Mapping[str, Any]) -> tuple[bytes, tuple[int, int]] | None:
    """Compressed counts and (height, width) of a json RLE, or None if its runs do not fill height x width.

    The check comes before the COCO library sees the counts, which decodes into a buffer of the stated size.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not isinstance(counts, (str, list)):
        return None
    height, width = (policy.whole_number(side) or 0 for side in size)
    if height < 1 or width < 1 or height * width > policy.MOST_PIXELS:
        return None
    try:
        if isinstance(counts, str):
            packed = counts.encode("ascii")
            runs = run_lengths(packed)
        else:
            packed, runs = None, _whole_runs(counts)
    except (TypeError, ValueError, OverflowError):
        return None
    if runs.ndim != 1 or ((runs < 0) | (runs > height * width)).any() or int(runs.sum()) != height * width:
        return None
    if packed is None:
        encoded: Any = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
        packed = bytes(encoded["counts"])
    return packed, (height, width)


def _whole_runs(counts: list[Any]) -> np.ndarray:
    """Run lengths written as a list; ValueError if one is no whole number."""
    runs = np.asarray(counts, dtype=np.float64)  # exact up to 2^53, far more than an image has pixels
    if not (runs == np.floor(runs)).all():
        raise ValueError("a run is no whole number")
    return np.where(np.abs(runs) < 1 << 53, runs, -1).astype(np.int64)


def run_lengths(packed: bytes) -> np.ndarray:
    """Run lengths of COCO's compressed counts; ValueError where the bytes are no such counts.

    Each number is written in groups of 5 bits, lowest first, with bit 5 set on all but its last group and bit 4 of
    the last group as its sign; from the fourth number on, the number is the difference to the one two before it.
    """
    groups = np.frombuffer(packed, dtype=np.uint8).astype(np.int64) - 48
    if len(groups) == 0 or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("not compressed RLE counts")
    last = (groups & 32) == 0
    number = np.cumsum(last) - last  # which number a group belongs to
    first = np.flatnonzero(np.concatenate(([True], last[:-1])))
    place = np.arange(len(groups)) - first[number]
    if place.max() > 7:
        raise ValueError("a run of more than 2^40 pixels")
    values = np.zeros(number[-1] + 1, dtype=np.int64)
    np.add.at(values, number, (groups & 31) << (5 * place))
    negative = (groups[last] & 16) != 0
    values -= np.where(negative, np.int64(1) << (5 * (place[last] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
