"""What config.py says of its experiment to people: one sentence, then lines such as `Paper:` and `Question:`."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_FIELD = re.compile(r"(\w+):\s+(.*)")
_CONNECTING = re.compile(r"(\s+(on|of|in|with|around|a|an|the))*[\s,;.]*$")


@dataclass(frozen=True)
class Header:
    """`summary` is the first paragraph, `fields` the lines below it by name, each joined with its continuation."""

    summary: str
    fields: Mapping[str, str]

    @property
    def question(self) -> str:
        """The question that the experiment answers; "" where somebody published its numbers."""
        return self.fields.get("Question", "")


def read(folder: Path) -> Header:
    """The header of an experiment folder, without running its config.py."""
    text = ast.get_docstring(ast.parse((folder / "config.py").read_text(encoding="utf-8"))) or ""
    summary, _, rest = text.partition("\n\n")
    fields: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        if found := _FIELD.match(line):
            name = found[1]
            fields[name] = found[2]
        elif line.startswith(" ") and name:
            fields[name] += " " + line.strip()
    return Header(" ".join(summary.split()), fields)


def methods(summaries: Sequence[str]) -> list[str]:
    """What distinguishes each experiment of a group, in its own words.

    A summary without what stands in parentheses or behind a colon, and without the words that it ends in like more than
    three quarters of the group: "Cosine classifier on Mask R-CNN, COCO." is "Cosine classifier" where the others end in
    "Mask R-CNN, COCO." too. "" for one that has no other words.
    """
    words = [re.sub(r"\s*\(.*?\)|:.*|\.$", "", summary).split() for summary in summaries]
    endings = Counter(tuple(one[start:]) for one in words for start in range(len(one)))
    shared = [ending for ending, count in endings.items() if count > 1 and 4 * count > 3 * len(words)]
    longest = max(shared, key=len, default=())
    ends = [longest[start:] for start in range(len(longest))]
    result = []
    for one in words:
        ending = next((end for end in ends if len(end) > 1 and tuple(one[-len(end) :]) == end), ())
        result.append(_CONNECTING.sub("", " ".join(one[: len(one) - len(ending)])))
    return result
