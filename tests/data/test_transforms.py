import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shared import shared

from cvpods_ext.data import transforms
from cvpods_ext.data.transforms import HorizontalFlip, LargeScaleJitter, ShortestEdgeResize
from cvpods_ext.structures import BitMasks, PolygonMasks, Targets


def golden():
    return json.loads(shared("golden/ops/d2_ops.json").read_text())


def rng(seed=0):
    return np.random.default_rng(seed)


def targets(boxes, polygons=None, size=(48, 64), bitmaps=None):
    masks = PolygonMasks.from_lists(polygons) if polygons is not None else None
    return Targets(
        boxes=torch.as_tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        labels=torch.arange(len(boxes)),
        masks=BitMasks(bitmaps) if bitmaps is not None else masks,
        image_id=1,
        size=size,
        original_size=size,
    )


def photo(height=48, width=64, seed=0):
    return torch.from_numpy(rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((333, 1000), (444, 1333)),
        ((1000, 300), (1333, 400)),
        ((427, 640), (800, 1199)),
        ((1, 1), (800, 800)),
        ((1, 5000), (1, 1333)),
    ],
)
def test_shortest_edge_sizes_of_the_reference(size, expected):
    assert transforms.shortest_edge_size(size, 800, 1333) == expected


def test_shortest_edge_sizes_of_the_golden_table():
    rows = golden()["resize_shortest_edge_rows_h_w_short_max_newh_neww"]
    for height, width, shortest, longest, new_height, new_width in rows:
        assert transforms.shortest_edge_size((height, width), shortest, longest) == (new_height, new_width)


@pytest.mark.parametrize(
    ("size", "share"),
    # Only the third changes the aspect ratio, shrinking one axis and stretching the other, which training never does.
    [((20, 26), 0.01), ((94, 122), 0.0), ((33, 80), 0.25)],
)
def test_resized_pixels_are_within_one_level_of_the_golden_ones(size, share):
    arrays = np.load(shared("golden/ops/d2_ops.npz"))
    image = torch.from_numpy(arrays["resize_in_uint8_hwc"]).permute(2, 0, 1)
    found = transforms.resize_image(image, size).permute(1, 2, 0).numpy().astype(int)
    expected = arrays[f"resize_out_{size[0]}x{size[1]}"].astype(int)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() <= share
    assert abs((found - expected).mean()) < 0.01  # no bias


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 90), st.integers(1, 90), st.integers(0, 99))
def test_resizing_agrees_with_pillow_within_one_level(height, width, new_height, new_width, seed):
    image = photo(height, width, seed)
    found = transforms.resize_image(image, (new_height, new_width)).permute(1, 2, 0).numpy().astype(int)
    reference = Image.fromarray(image.permute(1, 2, 0).numpy())
    expected = np.asarray(reference.resize((new_width, new_height), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_resize_moves_boxes_and_polygons_by_the_rounded_sides():
    before = targets([[4, 6, 20, 30]], [[[4.0, 6.0, 20.0, 6.0, 20.0, 30.0]]])
    image, after = ShortestEdgeResize((32,), 1000)(photo(), before, rng())
    assert image.shape == (3, 32, 43)
    assert after.size == (32, 43)
    assert after.original_size == (48, 64)
    x, y = 43 / 64, 32 / 48
    assert after.boxes[0].tolist() == pytest.approx([4 * x, 6 * y, 20 * x, 30 * y])
    assert after.masks.to_lists()[0][0].tolist() == pytest.approx([4 * x, 6 * y, 20 * x, 6 * y, 20 * x, 30 * y])


def test_every_size_is_drawn_about_equally_often():
    resize = ShortestEdgeResize((8, 12, 16), 1000)
    generator = rng()
    drawn = [resize(photo(), targets([]), generator)[1].size[0] for _ in range(600)]
    assert all(160 < drawn.count(size) < 240 for size in (8, 12, 16))


def test_a_flip_mirrors_pixels_boxes_and_masks_and_twice_is_nothing():
    bitmaps = torch.zeros(1, 48, 64, dtype=torch.bool)
    bitmaps[0, 6:30, 4:20] = True
    for before in (
        targets([[4, 6, 20, 30]], [[[4.0, 6.0, 20.0, 6.0, 20.0, 30.0]]]),
        targets([[4, 6, 20, 30]], bitmaps=bitmaps),
    ):
        flip = HorizontalFlip(1.0)
        image, once = flip(photo(), before, rng())
        assert torch.equal(image, photo().flip(2))
        assert once.boxes.tolist() == [[44, 6, 60, 30]]
        again, twice = flip(image, once, rng())
        assert torch.equal(again, photo())
        assert torch.equal(twice.boxes, before.boxes)
        first, second = (each.masks.to_bitmasks((48, 64)).bitmaps for each in (before, twice))
        assert torch.equal(first, second)
    assert transforms.bitmap_boxes(once.masks).tolist() == [[44, 6, 60, 30]]


def test_flips_happen_as_often_as_they_should():
    generator = rng()
    flip = HorizontalFlip(0.25)
    flipped = sum(not torch.equal(flip(photo(4, 4), targets([]), generator)[0], photo(4, 4)) for _ in range(800))
    assert 160 < flipped < 240


def test_the_same_generator_gives_the_same_sample():
    def sample(seed):
        generator, image, found = rng(seed), photo(), targets([[4, 6, 20, 30]])
        for transform in (ShortestEdgeResize((20, 30, 40), 100), HorizontalFlip(), LargeScaleJitter(32)):
            image, found = transform(image, found, generator)
        return image, found.boxes

    for seed in range(5):
        (first, boxes), (second, same_boxes) = sample(seed), sample(seed)
        assert torch.equal(first, second)
        assert torch.equal(boxes, same_boxes)


def test_large_scale_jitter_has_the_golden_geometry():
    for height, width, side, scale, new_height, new_width in golden()["lsj_resize_rows_h_w_target_scale_newh_neww"]:
        assert LargeScaleJitter(side).fitted_size((height, width), scale) == (new_height, new_width)
    for height, width, share, x, y, crop_width, crop_height in golden()["lsj_crop_rows_h_w_u_x0_y0_w_h"]:
        # The table has the nominal window; a smaller image stays as it is.
        expected = (x, y, min(crop_width, width), min(crop_height, height))
        assert LargeScaleJitter(1024).window((height, width), share) == expected


def shoelace(ring):
    x, y = np.asarray(ring, float).reshape(-1, 2).T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_the_golden_annotation_pipeline():
    values = golden()
    given_ = values["ann_pipeline_in"]
    assert values["ann_pipeline_transforms"] == (
        "hflip(width 160) -> resize to 180x240 (h x w) -> crop x0=37 y0=21 w=128 h=128"
    )
    state = targets(given_["boxes"], given_["polygons"], tuple(given_["hw"]))
    image = photo(*given_["hw"])
    image, state = HorizontalFlip(1.0)(image, state, rng())
    image, state = transforms.resize(image, state, (180, 240))
    # Without masks the boxes themselves are cropped.
    plain = targets(state.boxes.tolist(), size=state.size)
    _, plain = transforms.crop(image, plain, 37, 21, 128, 128)
    torch.testing.assert_close(plain.boxes, torch.tensor(values["ann_pipeline_boxes_after"]).double())
    kept = values["ann_pipeline_kept_classes_without_recompute"]
    assert transforms.finish(plain).labels.tolist() == kept

    image, state = transforms.crop(image, state, 37, 21, 128, 128)
    assert image.shape == (3, 128, 128)
    finished = transforms.finish(state)
    assert finished.labels.tolist() == values["ann_pipeline_kept_classes_with_recompute"]
    expected_boxes = torch.tensor(values["ann_pipeline_recomputed_boxes"])[finished.labels]
    torch.testing.assert_close(finished.boxes, expected_boxes, atol=1e-4, rtol=0)
    expected = [values["ann_pipeline_polygons_after"][label] for label in finished.labels]
    for found, golden_rings in zip(finished.masks.to_lists(), expected, strict=True):
        assert sum(map(shoelace, found)) == pytest.approx(sum(map(shoelace, golden_rings)), abs=1e-6)
    bitmaps = finished.masks.to_bitmasks((128, 128)).bitmaps
    assert torch.equal(bitmaps, PolygonMasks.from_lists(expected).to_bitmasks((128, 128)).bitmaps)


def test_cropped_bitmaps_give_tight_boxes():
    bitmaps = torch.zeros(3, 48, 64, dtype=torch.bool)
    bitmaps[0, 6:30, 4:20] = True
    bitmaps[1, 40:48, 60:64] = True  # outside the window
    bitmaps[2, 20, 20] = True  # one pixel
    before = targets([[4, 6, 20, 30], [60, 40, 64, 48], [20, 20, 21, 21]], bitmaps=bitmaps)
    image, after = transforms.crop(photo(), before, 10, 10, 32, 24)
    finished = transforms.finish(after)
    assert finished.labels.tolist() == [0, 2]
    assert finished.boxes.tolist() == [[0, 0, 10, 20], [10, 10, 11, 11]]
    assert finished.masks.bitmaps.shape == (2, 24, 32)
    assert image.is_contiguous()


def test_tight_boxes_of_bitmaps_equal_the_golden_ones():
    arrays = np.load(shared("golden/ops/d2_ops.npz"))
    packed = arrays["bitmasks_packed"]
    bitmaps = torch.from_numpy(np.unpackbits(packed, axis=1).reshape(3, 128, 128).astype(bool))
    assert np.array_equal(transforms.bitmap_boxes(BitMasks(bitmaps)).numpy(), arrays["bitmask_tight_boxes"])


def test_finishing_clips_and_drops_what_is_empty():
    before = targets(
        [[-5, -5, 10, 10], [70, 0, 80, 10], [5, 5, 5, 9], [1, 1, 9, 9]],
        [[[0.0, 0.0, 9.0, 0.0, 9.0, 9.0]], [[1.0, 1.0, 2.0, 2.0, 3.0, 1.0]], [[0.0, 0.0, 1.0, 1.0, 0.0, 1.0]], []],
    )
    after = transforms.finish(before)
    assert after.labels.tolist() == [0]
    assert after.boxes.tolist() == [[0, 0, 10, 10]]
    assert after.boxes.dtype == torch.float32
    assert len(after.masks) == 1


@pytest.mark.parametrize("masks", [[], None])
def test_an_image_without_instances_goes_through_everything(masks):
    image, state, generator = photo(1, 1), targets([], masks, (1, 1)), rng()
    for transform in (ShortestEdgeResize((20,), 100), HorizontalFlip(1.0), LargeScaleJitter(16)):
        image, state = transform(image, state, generator)
    state = transforms.finish(state)
    assert len(state) == 0
    assert tuple(image.shape[1:]) == state.size
