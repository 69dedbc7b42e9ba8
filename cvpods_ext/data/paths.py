"""Where the files of one data set lie on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Schema = Literal["lvis", "coco", "own"]


@dataclass(frozen=True)
class DatasetPaths:
    """Where a data set lies on this machine.

    In "lvis" an image is the last two components of its coco_url below `images`; otherwise it is its file_name.
    "own" is a json of the user's in either layout. `names_may_leave` allows image names that lead out of `images`.
    """

    name: str
    annotations: Path
    images: Path
    schema: Schema
    root: Path
    names_may_leave: bool = False
