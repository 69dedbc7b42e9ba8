"""Words of messages: numbers with their noun, and text of strangers that a terminal takes for nothing but text."""

from __future__ import annotations

import unicodedata

_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format (direction of writing), half pairs, line breaks
_HARMLESS = "\u200c\u200d"  # joiners, which several scripts and emoji are written with


def counted(number: int, one: str, several: str = "") -> str:
    """A number with its noun: "1 image", "2,000 images"; `several` for a plural that is not `one` with an s."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def verb(number: int, one: str, several: str) -> str:
    """The form of a verb or pronoun that goes with a number: `verb(n, "has", "have")`."""
    return one if number == 1 else several


def printable(text: str) -> str:
    r"""Text in one line, without characters that move a cursor, change colours or turn the direction of writing.

    They are shown as Python writes them, such as \x1b, so that a name can still be recognised.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    unsafe = unicodedata.category(character) in _UNSAFE and character not in _HARMLESS
    return character.encode("unicode_escape").decode("ascii") if unsafe else character
