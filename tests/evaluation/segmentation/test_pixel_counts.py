"""Counted pixels by hand and against loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvpods_ext.evaluation.segmentation.counts import Areas, count, near_contours

TRUTH = np.array([[0, 0, 1], [1, 2, 255]], dtype=np.uint8)
PREDICTED = np.array([[0, 1, 1], [0, 2, 2]], dtype=np.uint8)


def test_the_confusion_matrix_by_hand():
    counts = count(TRUTH, PREDICTED, 4)
    assert counts.confusion.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert counts.areas.tolist() == [[1, 1, 1, 0], [2, 2, 1, 0], [2, 2, 1, 0]]


def slow_contours(labels, width):
    near = np.zeros(labels.shape, bool)
    for y, x in np.ndindex(labels.shape):
        for other_y in range(y - width, y + width + 1):
            for other_x in range(x - width, x + width + 1):
                outside = not (0 <= other_y < labels.shape[0] and 0 <= other_x < labels.shape[1])
                near[y, x] |= outside or labels[other_y, other_x] != labels[y, x]
    return near


@given(height=st.integers(1, 9), width=st.integers(1, 9), reach=st.integers(1, 4), seed=st.integers(0, 99))
def test_contours_equal_a_loop_over_pixels(height, width, reach, seed):
    labels = (np.random.default_rng(seed).random((height, width)) < 0.15).astype(np.uint8)
    assert np.array_equal(near_contours(labels, reach), slow_contours(labels, reach))


def test_boundary_areas_follow_the_definition():
    """One class at a time: pixels of its mask near the mask's own contour, in truth and in prediction."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 3, (5, 6)), np.ones((8, 8))).astype(np.uint8)
    predicted = np.roll(truth, (1, 2), axis=(0, 1))
    truth[:4, :4] = 255
    width = max(1, round(0.02 * np.hypot(40, 48)))
    hidden = np.where(truth == 255, 255, predicted)
    expected = []
    for label in range(3):
        masks = []
        for labels in (truth, hidden):
            mask = labels == label
            masks.append(mask & slow_contours(mask, width))
        expected.append([(masks[0] & masks[1]).sum(), masks[1].sum(), masks[0].sum()])
    assert count(truth, predicted, 3, boundary=True).boundary.T.tolist() == expected


def test_a_perfect_map_has_equal_areas():
    counts = count(TRUTH, np.where(TRUTH == 255, 0, TRUTH), 3, boundary=True)
    for areas in (counts.areas, counts.boundary):
        assert np.array_equal(areas[0], areas[1])
        assert np.array_equal(areas[0], areas[2])


def test_sums_and_resamples_equal_dense_arrays():
    rng = np.random.default_rng(0)
    dense = rng.integers(0, 50, (6, 3, 5)) * (rng.random((6, 1, 5)) < 0.5)
    areas = Areas.gather(list(dense), 5)
    assert np.array_equal(areas.totals, dense.sum(axis=0))
    weights = rng.integers(0, 3, (7, 6))
    assert np.allclose(areas.resampled(weights), np.einsum("bi,iak->abk", weights, dense))


def test_no_image_is_a_table_without_rows():
    assert Areas.gather([], 5).totals.tolist() == [[0] * 5] * 3


@pytest.mark.parametrize("boundary", [False, True])
def test_an_image_without_ground_truth_counts_nowhere(boundary):
    counts = count(np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.uint8), 2, boundary=boundary)
    assert not counts.areas.any()
    assert counts.boundary is None or not counts.boundary.any()
