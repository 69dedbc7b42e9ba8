"""Rules and wordings for annotation files, which `columns`, `check` and `parse` apply.

Reading: a number may be written as text ("72.0"), a whole number as 72.0, a flag as "0" or "true"; null is absent.
Nothing else is converted. Numbers beyond the limits below count as damage, before they reach an array or a rasteriser.

| found in an annotation                         | boxes trained | masks trained | boxes evaluated | masks evaluated |
|------------------------------------------------|---------------|---------------|-----------------|-----------------|
| unknown image, an id of it that is none        | left out      | left out      | left out        | left out        |
| unknown category; a flag neither 0 nor 1       | left out      | left out      | exempt          | exempt          |
| no box, but a mask                             | derived       | derived       | derived         | counts          |
| no area, or one that is no number >= 0         | derived       | derived       | derived         | derived         |
| a box of width or height 0, or off its image   | left out      | left out      | counts          | counts          |
| any other unusable box                         | left out      | left out      | exempt          | counts          |
| unusable mask, or none while others have one   | counts        | left out      | counts          | exempt          |

"Counts" where training leaves out is the rule of the official evaluators. "Exempt" is not held against the detector:
the object is not missed, and detections that match nothing but it are not false positives. Those are the detections on
it, or where the box or mask that would tell is unusable, all on its image; of its category, or of every one where that
is unknown. What is left out or exempt is counted by reason. A file without any mask is a data set of boxes: `NO_MASK`
then costs nothing, and evaluating masks on it is refused.
"""

from __future__ import annotations

import math
import re
from enum import IntEnum
from typing import Any

LARGEST_ID = (1 << 62) - 1
FARTHEST = 1e9  # pixels; a coordinate beyond it is damage, one that is merely far outside is cut off
LONGEST_SIDE = (1 << 20) - 1  # pixels of an image
MOST_PIXELS = 1 << 28  # of an image; a bitmap of one object needs as many bytes
LONGEST_OUTLINE = 4e6  # pixels along all polygons of an object; the COCO rasteriser takes up to 80 bytes for each
LONGEST_NUMBER = 64  # characters of a number that is written as text
LONGEST_PATH, LONGEST_FILE_NAME = 4096, 255  # what Linux can open

_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,19}(\.0*)?\s*")
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True, "": False}


class Reference(IntEnum):
    """Why an annotation belongs to no image, to no category, or is nobody knows what kind of object."""

    SOUND = 0
    UNREADABLE = 1
    NO_IMAGE = 2
    NO_CATEGORY = 3
    BAD_FLAG = 4


class Box(IntEnum):
    """What is wrong with the box of an annotation."""

    SOUND = 0
    NO_BOX = 1
    NOT_FINITE = 2
    NEGATIVE = 3
    EMPTY = 4
    OUTSIDE = 5


class Mask(IntEnum):
    """What is wrong with the mask of an annotation."""

    SOUND = 0
    NO_MASK = 1
    UNREADABLE = 2
    DEGENERATE = 3
    NOT_FINITE = 4
    BAD_RLE = 5
    OUTSIDE = 6
    TOO_LONG = 7


REFERENCE_WORDS = (
    "",
    "not an object with a whole-number image_id",
    "image_id is not in images",
    "category_id is not in categories, or no whole number",
    "iscrowd or ignore is neither 0 nor 1",
)
BOX_WORDS = (
    "",
    "box is missing or is not four numbers",
    "box has a non-finite number, or one beyond 1e9",
    "box has a negative side; boxes are x, y, width, height",
    "box has no positive width and height",
    "box lies outside its image",
)
MASK_WORDS = (
    "",
    "no mask although other annotations have one",
    "segmentation is neither a list of polygons nor an RLE",
    "every polygon has fewer than 3 points or an odd number of values",
    "polygon has a value that is no finite number, or one beyond 1e9",
    "RLE does not decode, or its size or its runs are not those of its image",
    "polygon lies outside its image",
    "polygons with an outline of more than 4,000,000 pixels",
)
OF_NO_IMAGE = (Reference.UNREADABLE, Reference.NO_IMAGE)
EVALUATED_BOXES = (Box.SOUND, Box.EMPTY, Box.OUTSIDE)  # as the official evaluators count them
EVALUATED_MASKS = (Mask.SOUND, Mask.OUTSIDE)


def whole_number(value: Any) -> int | None:
    """An id, a side or a count: 72, 72.0, "72" or "72.0"; None for anything else and beyond `LARGEST_ID`."""
    if isinstance(value, str):
        if len(value) > LONGEST_NUMBER or not _WHOLE.fullmatch(value):
            return None
        value = int(value.partition(".")[0])
    elif isinstance(value, float):
        if not value.is_integer():
            return None
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if abs(value) <= LARGEST_ID else None


def number(value: Any) -> float:
    """A number or a number as text; NaN for anything else, and for integers that no float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return math.nan
    if isinstance(value, str) and len(value) > LONGEST_NUMBER:
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def flag(value: Any) -> bool | None:
    """0, 1, true, false, the same as text, or null for false; None for anything else."""
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    return bool(value) if value in (0, 1) else None


def text(value: Any) -> str | None:
    """A text that can be stored and printed; None for other values, NUL characters and lone surrogates."""
    if not isinstance(value, str) or "\0" in value:
        return None
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return value


def file_name(value: Any) -> str | None:
    """A text that the file system can look up."""
    name = text(value)
    if not name or len(name) > LONGEST_PATH:
        return None
    return name if all(len(part.encode()) <= LONGEST_FILE_NAME for part in re.split(r"[/\\]", name)) else None
