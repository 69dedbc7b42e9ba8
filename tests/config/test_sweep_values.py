"""Settings with several values, and all their combinations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpods_ext.config.sweep import Swept, combinations, folder_name, parse
from cvpods_ext.errors import ConfigError


def test_commas_part_values_unless_they_stand_in_brackets_or_quotes():
    assert parse(["schedule.lr=0.01, 0.02", "model.box_fc=(8, 8),(16,)", "data.train='a,b',c"]) == [
        Swept("schedule.lr", ("0.01", "0.02")),
        Swept("model.box_fc", ("(8, 8)", "(16,)")),
        Swept("data.train", ("'a,b'", "c")),
    ]


def test_every_combination_comes_once_and_the_last_setting_changes_first():
    assert combinations(parse(["a=1,2", "b=x", "c=3,4"])) == [
        ("a=1", "b=x", "c=3"),
        ("a=1", "b=x", "c=4"),
        ("a=2", "b=x", "c=3"),
        ("a=2", "b=x", "c=4"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "looks like schedule.lr=0.01,0.02"),
        ("=3", "cannot read"),
        ("lr=1,,2", "empty value"),
        ("lr=1,1", "a value twice"),
        ("lr=(1,2", "not closed"),
        ("lr='1,2", "not closed"),
    ],
)
def test_what_cannot_be_read_is_told(text, message):
    with pytest.raises(ConfigError, match=message):
        parse([text])


def test_a_key_given_twice_and_too_many_combinations_are_refused():
    with pytest.raises(ConfigError, match="lr is given twice"):
        parse(["lr=1", "lr=2"])
    many = ",".join(map(str, range(50)))
    with pytest.raises(ConfigError, match="2,500 combinations"):
        combinations(parse([f"a={many}", f"b={many}"]))


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3), st.lists(st.text(min_size=1), min_size=1, max_size=3))
def test_names_of_folders_are_safe_and_differ_where_the_settings_do(one, other):
    names = [folder_name(each) for each in (one, other)]
    for name in names:
        assert "/" not in name
        assert 0 < len(name) < 130
        assert name not in (".", "..")
    assert (names[0] == names[1]) == (",".join(one) == ",".join(other))
