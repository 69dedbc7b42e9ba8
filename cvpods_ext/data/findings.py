"""What the doctor reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]
EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One line of the report; a problem names its remedy."""

    level: Level
    subject: str
    text: str
    remedy: str = ""
