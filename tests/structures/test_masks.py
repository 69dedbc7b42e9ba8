import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared import shared

from cvpods_ext.structures import BitMasks, PolygonMasks

polygon = st.lists(st.tuples(st.floats(0, 50), st.floats(0, 40)), min_size=3, max_size=7).map(
    lambda points: [value for point in points for value in point]
)
instances = st.lists(st.lists(polygon, max_size=3), max_size=5)


def as_lists(masks):
    return [[part.tolist() for part in one] for one in masks.to_lists()]


@settings(deadline=None)
@given(instances)
def test_lists_survive_the_flat_layout(lists):
    masks = PolygonMasks.from_lists(lists)
    assert len(masks) == len(lists)
    assert as_lists(masks) == lists


@settings(deadline=None)
@given(instances, st.data())
def test_indexing_picks_whole_instances_in_the_order_asked_for(lists, data):
    index = data.draw(st.lists(st.integers(0, max(0, len(lists) - 1)), max_size=6)) if lists else []
    masks = PolygonMasks.from_lists(lists)
    expected = [lists[i] for i in index]
    assert as_lists(masks[index]) == expected
    assert as_lists(masks[torch.tensor(index, dtype=torch.int64)]) == expected
    keep = np.zeros(len(lists), dtype=bool)
    keep[sorted(set(index))] = True
    assert as_lists(masks[keep]) == [one for one, kept in zip(lists, keep, strict=True) if kept]


@settings(deadline=None)
@given(instances)
def test_flipping_twice_and_scaling_back_change_nothing(lists):
    masks = PolygonMasks.from_lists(lists)
    np.testing.assert_allclose(masks.flip_horizontal(64).flip_horizontal(64).vertices, masks.vertices, atol=1e-12)
    np.testing.assert_allclose(masks.scale(2, 4).scale(0.5, 0.25).vertices, masks.vertices)


def test_crops_equal_the_record():
    import json

    facts = json.loads(shared("golden/ops/d2_ops.json").read_text())
    ops = np.load(shared("golden/ops/d2_ops.npz"))
    boxes = torch.from_numpy(ops["crop_boxes"])
    polygons = PolygonMasks.from_lists(facts["crop_polygons"])
    np.testing.assert_array_equal(polygons.crop_and_resize(boxes, 28).numpy(), ops["crop_polygon_out28"])
    side = int((ops["bitmasks_packed"].shape[1] * 8) ** 0.5)
    bitmaps = np.unpackbits(ops["bitmasks_packed"], axis=1)[:, : side * side].reshape(-1, side, side)
    found = BitMasks(torch.from_numpy(bitmaps.astype(bool))).crop_and_resize(boxes, 28)
    np.testing.assert_array_equal(found.numpy(), ops["crop_bitmask_out28"])


@settings(max_examples=25, deadline=None)
@given(instances)
def test_a_crop_is_the_union_of_the_shifted_and_stretched_polygons(lists):
    masks = PolygonMasks.from_lists(lists)
    boxes = torch.tensor([[5.0, 3, 40, 33]]).repeat(len(lists), 1)
    found = masks.crop_and_resize(boxes, 14)
    assert found.shape == (len(lists), 14, 14)
    for mask, parts in zip(found, lists, strict=True):
        expected = np.zeros((14, 14), dtype=bool)
        for part in parts:
            points = (np.array(part).reshape(-1, 2) - [5, 3]) * [14 / 35, 14 / 30]
            expected |= coco_mask.decode(coco_mask.frPyObjects([points.flatten().tolist()], 14, 14))[..., 0] > 0
        np.testing.assert_array_equal(mask.numpy(), expected)


@pytest.mark.parametrize("box", [[10.0, 10, 10, 10], [10, 10, 10.01, 30]])
def test_a_box_without_area_gives_a_mask_of_the_right_shape(box):
    masks = PolygonMasks.from_lists([[[0.0, 0, 20, 0, 20, 20]]])
    assert masks.crop_and_resize(torch.tensor([box]), 28).shape == (1, 28, 28)


def test_no_instances_and_instances_without_polygons():
    none = PolygonMasks.from_lists([])
    assert none.crop_and_resize(torch.zeros(0, 4), 28).shape == (0, 28, 28)
    assert none.to_bitmasks((5, 6)).bitmaps.shape == (0, 5, 6)
    hollow = PolygonMasks.from_lists([[], [[0.0, 0, 6, 0, 6, 5, 0, 5]]])
    crops = hollow.crop_and_resize(torch.tensor([[0.0, 0, 6, 5]] * 2), 4)
    assert crops[0].sum() == 0
    assert crops[1].all()


def test_bitmaps_flip_scale_and_index_like_polygons():
    polygons = PolygonMasks.from_lists([[[2.0, 1, 9, 1, 9, 7, 2, 7]], [[0.0, 0, 3, 0, 3, 3, 0, 3]]])
    bitmaps = polygons.to_bitmasks((8, 12))
    assert torch.equal(bitmaps.flip_horizontal(12).bitmaps, polygons.flip_horizontal(12).to_bitmasks((8, 12)).bitmaps)
    assert torch.equal(bitmaps.scale(2, 2).bitmaps, polygons.scale(2, 2).to_bitmasks((16, 24)).bitmaps)
    assert torch.equal(bitmaps[[1]].bitmaps, bitmaps.bitmaps[1:])
    assert bitmaps.to_bitmasks((8, 12)) is bitmaps
    assert BitMasks(torch.zeros(0, 8, 12, dtype=torch.bool)).scale(2, 3).bitmaps.shape == (0, 24, 24)
