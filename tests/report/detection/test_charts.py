"""Charts: points land where their numbers say."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from cvpods_ext.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Axis, against_frequency, running_mean
from cvpods_ext.report.detection.charts import precision_recall


def test_a_precision_line_runs_from_its_first_to_its_last_point():
    svg = precision_recall([np.array([1.0, 0.5, 0.0]), None])
    ElementTree.fromstring(svg)
    points = re.search(r'points="([^"]+)"', svg)[1].split()
    assert points[0] == f"{LEFT:.1f},{TOP:.1f}"
    assert points[1] == f"{(LEFT + WIDTH - RIGHT) / 2:.1f},{(TOP + HEIGHT - BOTTOM) / 2:.1f}"
    assert points[2] == f"{WIDTH - RIGHT:.1f},{HEIGHT - BOTTOM:.1f}"
    assert svg.count("<polyline") == 1


def test_counts_are_placed_logarithmically_and_clipped():
    axis = Axis("images", 1, 1000, (1, 10, 100, 1000), log=True)
    assert [round(axis.place(v), 6) for v in (0, 1, 10, 100, 1000, 5000)] == [0, 0, 0.333333, 0.666667, 1, 1]


def test_every_category_with_ground_truth_has_a_dot_with_an_escaped_name():
    ap = [np.array([10.0, np.nan, 30.0]), np.array([20.0, np.nan, 40.0])]
    svg = against_frequency(np.array([1, 5, 900]), ap, ["a<b", "c", "d"], "AP")
    root = ElementTree.fromstring(svg)
    titles = [node.text for node in root.iter("title")]
    assert titles == [
        "a<b: 1 training images, AP 10.0",
        "d: 900 training images, AP 30.0",
        "a<b: 1 training images, AP 20.0",
        "d: 900 training images, AP 40.0",
    ]


def test_running_means_split_categories_into_equal_groups_by_count():
    counts, values = np.array([100, 1, 10, 1000]), np.array([3.0, 1.0, 2.0, 4.0])
    centres, means = running_mean(counts, values, bins=2)
    assert means == [1.5, 3.5]
    np.testing.assert_allclose(centres, [10**0.5, 10**2.5])
    assert running_mean(np.array([], int), np.array([])) == ([], [])
