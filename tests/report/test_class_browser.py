"""The table of classes on a page: what it is sorted by, which classes are drawn, what the script gets."""

import json

import numpy as np

from cvpods_ext.report.class_browser import Browser, Example, legend


def browser(*values, **changes):
    values = [np.asarray(each, float) for each in values]
    count = len(values[0])
    given = dict(
        runs=[f"run {k}" for k in range(len(values))],
        names=[f"class {k}" for k in range(count)],
        values=values,
        counts={"training images": np.arange(count), "unknown": None},
        groups=["few"] * count,
        group_titles={"many": "many", "few": "few"},
        one="class",
        value="top1",
    )
    return Browser(**{**given, **changes})


def test_effects_say_what_they_compare():
    first, second = [1.0, 5.0], [3.0, 4.0]
    assert browser(first).effects()[1].tolist() == [99.0, 95.0]
    assert browser(first, second).effects()[1].tolist() == [2.0, -1.0]
    assert browser(first, second, [0.0, 9.0]).effects()[1].tolist() == [3.0, 5.0]


def test_classes_of_largest_effect_are_drawn_as_long_as_pictures_are_few():
    both = browser([0.0, 0.0, np.nan, 0.0], [5.0, -9.0, np.nan, 1.0])
    counts = np.array([3, 4, 5, 6])
    assert both.to_draw(counts, most=7) == {0, 1}
    assert both.to_draw(counts, most=1000) == {0, 1, 3}


def test_the_data_hold_every_measured_class_and_are_json():
    example = Example(0, "taken for x", "", "a", "x", 0.5, "a/1.jpg", "data:,")
    data = browser([10.0, np.nan, 30.0]).data({0}, {0: [example]})
    assert [one["name"] for one in data["categories"]] == ["class 0", "class 2"]
    first, last = data["categories"]
    assert (first["values"], first["counts"], first["drawn"]) == ([10.0], [0, None], True)
    assert first["examples"][0]["source"] == "a/1.jpg"
    assert not last["drawn"]
    json.dumps(data, allow_nan=False)


def test_text_from_outside_is_escaped():
    page = browser([1.0], runs=["<b>"]).html("<i>", "text") + legend(["<u>"])
    assert "<b>" not in page
    assert "<i>" not in page
    assert "<u>" not in page
    assert 'name="error"' not in page, "nothing to choose from"
