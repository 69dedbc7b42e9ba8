"""Where the weights lie that others published for experiments of the playground. Imports nothing heavy.

`published_weights.csv` holds an address for each experiment, its size and checksum where a source states them, and
that source. An experiment whose card quotes a published number without an address there has none that is certain.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cvpods_ext.errors import WeightsError


@dataclass(frozen=True)
class PublishedWeights:
    """One file: `size` in bytes and `sha256` in hex, None and "" where unknown; `source` says who states it."""

    address: str
    size: int | None
    sha256: str
    source: str


@cache
def load() -> Mapping[str, PublishedWeights]:
    """All published weights by the name of the experiment."""
    text = files("cvpods_ext.config").joinpath("published_weights.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {
        row["experiment"]: PublishedWeights(
            row["address"], int(row["size"]) if row["size"] else None, row["sha256"], row["source"]
        )
        for row in rows
    }


def of(experiment: str) -> PublishedWeights:
    """Those of the experiment of that name; WeightsError names the experiments that have some."""
    known = load()
    if experiment not in known:
        close = difflib.get_close_matches(experiment, known, n=3, cutoff=0.8)
        hint = f"Did you mean {' or '.join(close)}? " if close else ""
        names = "\n".join(f"  {name}" for name in sorted(known))
        raise WeightsError(
            f"{experiment} has no published weights with a known address. {hint}Test a file of yours with "
            f"--weights FILE; published weights are known for\n{names}"
        )
    return known[experiment]


def stated(address: str) -> PublishedWeights | None:
    """What is known of the file at `address`, whichever experiment it belongs to."""
    return next((each for each in load().values() if each.address == address), None)
