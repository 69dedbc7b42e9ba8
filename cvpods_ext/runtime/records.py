"""metrics.jsonl, one JSON object a line: a line that is damaged or out of order costs that line. Imports no torch."""

from __future__ import annotations

import json
import logging
import sys
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cvpods_ext.runtime.files import REMEDY, append_line, atomic_path
from cvpods_ext.runtime.words import verb

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
_TAIL_BYTES = 1 << 16
_MOST_ITERATIONS = 1 << 53

Record = dict[str, Any]


def parse_record(line: bytes) -> Record | None:
    """The record of one line, None if it is none: an object whose `iteration` is a whole number, numbers in range."""
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not _is_iteration(record.get("iteration")):
        return None
    return record if all(_fits_a_float(value) for value in record.values()) else None


def read_records(file: Path) -> list[Record]:
    """Every sound record of a metrics.jsonl, in order; damaged lines are counted in a warning."""
    return [record for _, record in _sound_lines(file)]


def drop_records_after(file: Path, iteration: int, remedy: str = REMEDY) -> list[Record]:
    """Keep and return the records up to `iteration`; damaged lines go as well, and are counted in a warning."""
    if not file.is_file():
        return []
    kept = [(line, record) for line, record in _sound_lines(file) if record["iteration"] <= iteration]
    content = b"".join(line + b"\n" for line, _ in kept)
    if file.stat().st_size != len(content):
        with atomic_path(file, remedy) as temporary:
            temporary.write_bytes(content)
    return [record for _, record in kept]


def last_record(file: Path, numbers: Collection[str] = (), most: int = _MOST_ITERATIONS) -> Record:
    """The last sound record up to iteration `most` that has finite numbers under these names, {} if none.

    Reads only the end of the file.
    """
    if not file.is_file():
        return {}
    with open(file, "rb") as stream:
        stream.seek(max(0, file.stat().st_size - _TAIL_BYTES))
        lines = stream.read().split(b"\n")[:-1]
    found = [record for record in map(parse_record, lines) if record is not None and record["iteration"] <= most]
    found = [record for record in found if all(is_finite(record.get(name)) for name in numbers)]
    kept = _in_order([record["iteration"] for record in found])
    return found[kept[-1]] if kept else {}


def append_record(file: Path, record: Mapping[str, Any], remedy: str = REMEDY) -> None:
    """Add a record; StorageError, and the file as it was, if the disk is full."""
    append_line(file, json.dumps(record), remedy)


def _sound_lines(file: Path) -> list[tuple[bytes, Record]]:
    if not file.is_file():
        return []
    *lines, _cut_off = file.read_bytes().split(b"\n")  # a kill may cut off the last line
    records = [(line, parse_record(line)) for line in lines]
    sound = [number for number, (_, record) in enumerate(records, start=1) if record is not None]
    kept = _in_order([record["iteration"] for _, record in records if record is not None])
    in_order = {sound[position] for position in kept}
    damaged = [number for number in range(1, len(lines) + 1) if number not in in_order]
    if damaged:
        logger.warning(
            "%s: %d of %d lines %s damaged or out of order and left out, the first is line %d",
            file,
            len(damaged),
            len(lines),
            verb(len(damaged), "is", "are"),
            damaged[0],
        )
    return [
        (line, record)
        for number, (line, record) in enumerate(records, start=1)
        if record is not None and number in in_order
    ]


def _in_order(iterations: Sequence[int]) -> list[int]:
    """Positions of the most numbers that do not fall: a run only counts up, so that what falls out is damage.

    The longest subsequence that does not decrease, by patience sorting, in O(n log n).
    """
    ends: list[int] = []  # the smallest number that ends a sequence of each length
    places: list[int] = []  # and its position
    before = [-1] * len(iterations)
    for position, iteration in enumerate(iterations):
        length = bisect_right(ends, iteration)
        before[position] = places[length - 1] if length else -1
        ends[length : length + 1], places[length : length + 1] = [iteration], [position]
    kept: list[int] = []
    position = places[-1] if places else -1
    while position >= 0:
        kept.append(position)
        position = before[position]
    return kept[::-1]


def _is_iteration(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST_ITERATIONS


def is_finite(value: Any) -> bool:
    """Whether a value of a record is a number that can be computed with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _fits_a_float(value: Any) -> bool:
    return not isinstance(value, int) or abs(value) <= sys.float_info.max
