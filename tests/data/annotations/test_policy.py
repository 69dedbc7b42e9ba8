import math

import pytest

from cvpods_ext.data.annotations import policy
from cvpods_ext.data.annotations.file_names import leaves_folder


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (72, 72), (72.0, 72), ("72", 72), ("72.0", 72), (" -3 ", -3), (0, 0), (2**62 - 1, 2**62 - 1),
        (72.5, None), ("72.5", None), ("7e1", None), ("", None), (True, None), (None, None), ([72], None),
        (2**62, None), (1e300, None), (math.nan, None), (math.inf, None), ("9" * 5000, None),
    ],
)  # fmt: skip
def test_whole_numbers(value, expected):
    assert policy.whole_number(value) == expected


@pytest.mark.parametrize(("value", "expected"), [(5, 5.0), (0.5, 0.5), ("0.5", 0.5), ("-1e3", -1000.0), (-0.0, 0.0)])
def test_numbers(value, expected):
    assert policy.number(value) == expected


@pytest.mark.parametrize("value", [None, True, "N/A", "", [], {}, 10**400, "1" * 100])
def test_what_is_no_number_is_nan(value):
    assert math.isnan(policy.number(value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, False), (1, True), (False, False), (True, True), (None, False), ("0", False), ("1", True), ("True", True),
        (1.0, True), (2, None), ("no", None), ([], None), (math.nan, None),
    ],
)  # fmt: skip
def test_flags(value, expected):
    assert policy.flag(value) is expected


@pytest.mark.parametrize("value", [None, 5, "a\0b", "\ud800", "", "x" * 300, "a/" * 3000])
def test_names_that_no_file_can_have(value):
    assert policy.file_name(value) is None


@pytest.mark.parametrize("value", ["a.png", "sub/ä.png", "sub\\a.png", "x" * 255])
def test_names_that_a_file_can_have(value):
    assert policy.file_name(value) == value


@pytest.mark.parametrize(
    "name", ["/a.png", "../a.png", "a/../../b.png", "\\\\server\\a.png", "C:\\a.png", "d:/a.png", ".."]
)
def test_names_that_leave_their_folder(name):
    assert leaves_folder(name)


@pytest.mark.parametrize("name", ["a.png", "a/../b.png", "./a.png", "a..b.png", "a/b/../../c.png", "..a/b.png"])
def test_names_that_stay_in_their_folder(name):
    assert not leaves_folder(name)


def test_every_problem_has_words():
    for kind, words in (
        (policy.Reference, policy.REFERENCE_WORDS),
        (policy.Box, policy.BOX_WORDS),
        (policy.Mask, policy.MASK_WORDS),
    ):
        assert [int(member) for member in kind] == list(range(len(words)))
        assert words[0] == ""
        assert all(words[1:])
