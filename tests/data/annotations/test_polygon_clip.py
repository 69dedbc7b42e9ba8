import numpy as np
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cvpods_ext.data.annotations import polygon_clip
from cvpods_ext.structures import PolygonMasks

FRAME = (40, 50)


def star(seed, vertices):
    """A simple, mostly concave polygon that reaches over the borders of the frame."""
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.uniform(0, 2 * np.pi, vertices))
    reach = rng.uniform(3, 45, vertices)
    centre = rng.uniform((-10, -10), (60, 50))
    return (centre + reach[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)).reshape(-1)


def coverage(masks, margin=0):
    """Bitmaps on a grid eight times as fine, so that the rasteriser's rounding is below a pixel."""
    fine = masks.scale(8, 8)
    shifted = PolygonMasks(fine.vertices + margin * 8, fine.polygon_starts, fine.instance_starts)
    size = tuple((side + 2 * margin) * 8 for side in FRAME)
    return shifted.to_bitmasks(size).bitmaps


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(3, 12)), min_size=1, max_size=4))
def test_a_clipped_polygon_covers_what_lies_in_the_frame_and_nothing_outside(stars):
    masks = PolygonMasks.from_lists([[star(seed, vertices)] for seed, vertices in stars])
    clipped = polygon_clip.clip(masks, FRAME)
    assert len(clipped) == len(masks)
    assert (clipped.vertices >= 0).all()
    assert (clipped.vertices <= [FRAME[1], FRAME[0]]).all()
    # The rasteriser's outlines may shift by a fine pixel, hence a share of the perimeter.
    margin = 60
    whole = coverage(masks, margin)[:, margin * 8 : -margin * 8, margin * 8 : -margin * 8]
    different = (whole ^ coverage(clipped)).flatten(1).sum(dim=1)
    assert (different < 0.01 * FRAME[0] * FRAME[1] * 64).all()


def test_polygons_inside_are_untouched_and_outside_vanish():
    inside, outside = [1.0, 1.0, 9.0, 1.0, 9.0, 9.0], [60.0, 1.0, 70.0, 1.0, 70.0, 9.0]
    masks = PolygonMasks.from_lists([[inside, outside], [outside], [], [inside]])
    clipped = polygon_clip.clip(masks, FRAME)
    lists = [[ring.tolist() for ring in instance] for instance in clipped.to_lists()]
    assert lists == [[inside], [], [], [inside]]


def test_a_triangle_cut_by_a_corner_by_hand():
    clipped = polygon_clip.clip(PolygonMasks.from_lists([[[-10.0, 5.0, 10.0, 5.0, 10.0, -15.0]]]), FRAME)
    points = {tuple(point) for point in clipped.vertices.tolist()}
    assert points == {(0.0, 5.0), (10.0, 5.0), (10.0, 0.0), (0.0, 0.0), (-5.0 + 5.0, 0.0)}


def test_a_polygon_that_only_touches_the_border_is_gone():
    clipped = polygon_clip.clip(PolygonMasks.from_lists([[[-5.0, 0.0, 0.0, 3.0, 0.0, 9.0]]]), FRAME)
    assert len(clipped) == 1
    assert len(clipped.vertices) == 0


def test_no_polygons_at_all():
    clipped = polygon_clip.clip(PolygonMasks.from_lists([]), FRAME)
    assert len(clipped) == 0
    assert polygon_clip.tight_boxes(clipped).shape == (0, 4)


@given(st.lists(st.lists(st.tuples(st.integers(0, 999), st.integers(3, 6)), max_size=3), max_size=5))
def test_tight_boxes_are_the_extremes_of_all_polygons(instances):
    lists = [[star(*polygon) for polygon in polygons] for polygons in instances]
    assume(lists)
    boxes = polygon_clip.tight_boxes(PolygonMasks.from_lists(lists))
    for box, polygons in zip(boxes, lists, strict=True):
        points = np.concatenate([ring.reshape(-1, 2) for ring in polygons]) if polygons else np.zeros((1, 2))
        assert np.array_equal(box, [*points.min(axis=0), *points.max(axis=0)])


def test_tight_boxes_are_floats_of_the_vertices():
    boxes = polygon_clip.tight_boxes(PolygonMasks.from_lists([[[1.25, 2.5, 3.5, 2.5, 3.5, 9.0]]]))
    assert torch.from_numpy(boxes).tolist() == [[1.25, 2.5, 3.5, 9.0]]
