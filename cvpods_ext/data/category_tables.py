"""The shipped facts about public data sets: names of all categories and, for LVIS, frequency groups and counts."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Category:
    """One category of a data set; `frequency` is "r", "c" or "f" in LVIS and "" where the json does not say.

    The counts are the json's own claims about the training set, -1 where it makes none.
    """

    id: int
    name: str
    frequency: str = ""
    image_count: int = -1
    instance_count: int = -1


@cache
def load(table: str) -> tuple[Category, ...]:
    """Rows of a shipped table (`lvis_v1_train`, `lvis_v0.5_train`, `coco_2017`) in the order of category ids."""
    text = (Path(__file__).parent / "tables" / f"{table}.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    categories = [
        Category(
            int(row["id"]),
            row["name"],
            row.get("frequency", ""),
            int(row.get("image_count", -1)),
            int(row.get("instance_count", -1)),
        )
        for row in rows
    ]
    return tuple(sorted(categories, key=lambda category: category.id))
