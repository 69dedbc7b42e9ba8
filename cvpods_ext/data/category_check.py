"""Whether two data sets mean the same categories: labels are positions in sorted ids, so names alone can tell."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.data.category_tables import Category
from cvpods_ext.errors import DataError

REMEDY = "Give both files one list of categories, with the same ids, and change category_id of the annotations with it."
_EXAMPLES = 3


def check_categories(train: Sequence[Category], test: Annotations) -> None:
    """DataError unless a file gives the same names to the same ids as the categories that are trained on.

    A network that learned label 0 as "apple" would otherwise be evaluated on it as "bolt" without a word.
    """
    found = differences(train, test.categories)
    if found:
        raise DataError(
            f"{test.paths.annotations} has {test.num_classes} categories, the training set {len(train)}, and they are "
            f"not the same: {'; '.join(found)}. {REMEDY}"
        )


def differences(train: Sequence[Category], test: Sequence[Category]) -> list[str]:
    """What differs between two lists of categories, in words with examples; empty if they mean the same.

    Capitals, surrounding space and the Unicode form of a name make no difference.
    """
    of_train, of_test = ({each.id: each.name for each in categories} for categories in (train, test))
    renamed = [
        f"id {number} is {of_train[number]!r} in training and {of_test[number]!r} here"
        for number in of_train
        if number in of_test and _plain(of_train[number]) != _plain(of_test[number])
    ]
    absent = [f"{name!r} (id {number})" for number, name in of_train.items() if number not in of_test]
    unknown = [f"{name!r} (id {number})" for number, name in of_test.items() if number not in of_train]
    found = [_some(renamed)] if renamed else []
    if absent:
        found.append(f"{len(absent)} of the training set are absent here: {_some(absent)}")
    if unknown:
        found.append(f"{len(unknown)} here are unknown in the training set: {_some(unknown)}")
    return found


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


def _some(words: list[str]) -> str:
    return ", ".join(words[:_EXAMPLES]) + (f", and {len(words) - _EXAMPLES} more" if len(words) > _EXAMPLES else "")
