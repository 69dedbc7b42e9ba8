"""The shipped facts about the LVIS training sets: names, frequency groups and counts of every category."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


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
    """Rows of a shipped table, `lvis_v1_train` or `lvis_v0.5_train`, in the order of category ids."""
    text = files("cvpods_ext.data").joinpath("tables", f"{table}.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    categories = [
        Category(int(r["id"]), r["name"], r["frequency"], int(r["image_count"]), int(r["instance_count"])) for r in rows
    ]
    return tuple(sorted(categories, key=lambda category: category.id))
