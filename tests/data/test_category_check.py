import pytest

from cvpods_ext.data.category_check import differences
from cvpods_ext.data.category_tables import Category

TRAIN = [Category(1, "apple"), Category(2, "bolt"), Category(5, "cup")]


@pytest.mark.parametrize("names", [("apple", "bolt", "cup"), ("Apple", " bolt", "CUP")])
def test_the_same_names_under_the_same_ids_do_not_differ(names):
    assert differences(TRAIN, [Category(number, name) for number, name in zip((1, 2, 5), names, strict=True)]) == []


def test_swapped_names_are_named_with_their_ids():
    [text] = differences(TRAIN, [Category(1, "bolt"), Category(2, "apple"), Category(5, "cup")])
    assert text == "id 1 is 'apple' in training and 'bolt' here, id 2 is 'bolt' in training and 'apple' here"


def test_the_same_names_under_other_ids_are_absent_and_unknown():
    absent, unknown = differences(TRAIN, [Category(10, "apple"), Category(2, "bolt"), Category(5, "cup")])
    assert absent == "1 of the training set are absent here: 'apple' (id 1)"
    assert unknown == "1 here are unknown in the training set: 'apple' (id 10)"


def test_many_differences_are_counted_and_three_are_shown():
    [text] = differences([Category(k, f"class {k}") for k in range(9)], [Category(0, "class 0")])
    assert text.startswith("8 of the training set are absent here: 'class 1' (id 1), ")
    assert text.endswith(", and 5 more")
