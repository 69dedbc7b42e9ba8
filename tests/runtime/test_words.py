"""Numbers with their nouns, and names of strangers on a terminal."""

import pytest

from cvpods_ext.runtime.words import counted, printable, verb


def test_a_number_decides_the_form_of_its_noun_and_verb():
    assert [counted(n, "image") for n in (0, 1, 2, 12345)] == ["0 images", "1 image", "2 images", "12,345 images"]
    assert [counted(n, "category", "categories") for n in (1, 2)] == ["1 category", "2 categories"]
    assert [verb(n, "has", "have") for n in (0, 1, 2)] == ["have", "has", "have"]


@pytest.mark.parametrize("text", ["apple", "Äpfel", "蘋果", "a b", "", "👩\u200d🚀", "نمونه"])
def test_names_of_any_language_stay_as_they_are(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("two\nlines\r", r"two\nlines\r"),
        ("bell\a\x00", r"bell\x07\x00"),
        ("\x9b2J", r"\x9b2J"),  # a control sequence in one character
        ("evil\u202egnp.exe", r"evil\u202egnp.exe"),
        ("line\u2028break", r"line\u2028break"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_characters_that_a_terminal_acts_on_are_written_out(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
