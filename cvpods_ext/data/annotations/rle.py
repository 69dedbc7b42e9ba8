"""COCO run-length masks from untrusted files: brought to compressed bytes only if they describe exactly one image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask


def compress(segmentation: Mapping[str, Any]) -> tuple[bytes, tuple[int, int]] | None:
    """Compressed counts and (height, width) of a json RLE, or None if its runs do not fill height x width.

    The check comes before the COCO library sees the counts, which decodes into a buffer of the stated size.
    """
    try:
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        packed = counts.encode("ascii") if isinstance(counts, str) else None
        runs = np.asarray(counts, dtype=np.int64) if packed is None else run_lengths(packed)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if height < 1 or width < 1 or height * width > 1 << 31 or runs.ndim != 1 or (runs < 0).any():
        return None
    if int(runs.sum()) != height * width:
        return None
    if packed is None:
        encoded: Any = coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
        packed = bytes(encoded["counts"])
    return packed, (height, width)


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
