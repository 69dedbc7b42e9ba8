"""COCO run-length masks from untrusted files: brought to compressed bytes only if they describe exactly one image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

from cvpods_ext.data.annotations import policy

_LONGEST = 8  # groups of 5 bits of one number: runs up to 2^40 pixels


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
    """Run lengths of COCO's compressed counts; ValueError where the bytes are no such counts."""
    groups = np.frombuffer(packed, dtype=np.uint8).astype(np.int64) - 48
    if len(groups) == 0 or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("not compressed RLE counts")
    values, longest = _numbers(groups)
    if longest > _LONGEST:
        raise ValueError("a run of more than 2^40 pixels")
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _numbers(groups: np.ndarray) -> tuple[np.ndarray, int]:
    """The numbers that `groups` (at least one, the last one ending a number) write, and the most groups of one.

    Each number is written in groups of 5 bits, lowest first, with bit 5 set on all but its last group and bit 4 of
    the last group as its sign; from the fourth number of a mask on, it is the difference to the one two before it.
    """
    last = (groups & 32) == 0
    first = np.flatnonzero(np.concatenate(([True], last[:-1])))
    lengths = np.diff(np.append(first, len(groups)))
    longest = int(lengths.max())
    place = np.minimum(np.arange(len(groups)) - np.repeat(first, lengths), _LONGEST)
    values = np.add.reduceat((groups & 31) << (5 * place), first)
    negative = (groups[last] & 16) != 0
    values -= np.where(negative, np.int64(1) << (5 * np.minimum(lengths, _LONGEST)), 0)
    return values, longest


def covered_pixels(counts: Sequence[bytes]) -> np.ndarray:
    """(N,) pixels that the runs of each mask add up to, -1 where a mask has no compressed counts.

    All masks are decoded together: a difference counts in its own run and in every second one after it.
    """
    found = np.full(len(counts), -1, np.int64)
    lengths = np.array([len(one) for one in counts], np.int64)
    groups = np.frombuffer(b"".join(counts), np.uint8).astype(np.int64) - 48
    owner = np.repeat(np.arange(len(counts)), lengths)
    sound = lengths > 0
    sound[owner[(groups < 0) | (groups > 63)]] = False
    ends = np.cumsum(lengths)[sound] - 1
    sound[np.flatnonzero(sound)[(groups[ends] & 32) != 0]] = False
    chosen = sound[owner]
    groups, owner = groups[chosen], owner[chosen]
    if len(groups) == 0:
        return found
    values, longest = _numbers(groups)
    if longest > _LONGEST:  # rare, and then told apart one by one
        return np.array([_covered(one) for one in counts], np.int64)
    rows = owner[(groups & 32) == 0]
    sizes = np.bincount(rows, minlength=len(counts))[sound]
    index = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    times = np.where(index == 0, 1, (np.repeat(sizes, sizes) - 1 - index) // 2 + 1)
    found[sound] = np.add.reduceat(values * times, np.cumsum(sizes) - sizes)
    return found


def _covered(packed: bytes) -> int:
    try:
        return int(run_lengths(packed).sum())
    except ValueError:
        return -1
