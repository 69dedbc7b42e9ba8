import numpy as np
import pycocotools.mask as coco_mask
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cvpods_ext.data.annotations.rle import compress, covered_pixels, run_lengths

bitmaps = npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(0, 1))


def runs_of(bitmap):
    """Slow reference: lengths of equal pixels down the columns, starting with zeros."""
    runs, current = [0], 0
    for pixel in bitmap.T.ravel():
        if pixel != current:
            runs.append(0)
            current = pixel
        runs[-1] += 1
    return runs


@given(bitmaps)
def test_run_lengths_are_those_of_the_coco_library(bitmap):
    packed = coco_mask.encode(np.asfortranarray(bitmap))["counts"]
    assert run_lengths(packed).tolist() == runs_of(bitmap)


@given(bitmaps)
def test_lists_of_runs_and_compressed_text_give_the_same_bytes(bitmap):
    size = list(bitmap.shape)
    packed = coco_mask.encode(np.asfortranarray(bitmap))["counts"]
    expected = (packed, bitmap.shape)
    assert compress({"size": size, "counts": runs_of(bitmap)}) == expected
    assert compress({"size": size, "counts": packed.decode()}) == expected


def test_large_runs_survive():
    runs = [0, 5_000_000, 1, 4_999_999]
    packed, _ = compress({"size": [10_000, 1000], "counts": runs})
    assert run_lengths(packed).tolist() == runs


@pytest.mark.parametrize(
    "segmentation",
    [
        {},
        {"size": [2, 2]},
        {"size": [2, 2], "counts": [1, 2]},  # too few pixels
        {"size": [2, 2], "counts": [1, 9]},  # too many: would be written past the end of the bitmap
        {"size": [2, 2], "counts": [6, -2]},
        {"size": [2, 2], "counts": "not rle \x7f"},
        {"size": [2, 2], "counts": "é"},
        {"size": [2, 2], "counts": ""},
        {"size": [2, 2], "counts": "P"},  # a number that goes on after the end
        {"size": [2, 2], "counts": "P" * 40 + "1"},
        {"size": [2, 2], "counts": None},
        {"size": [2, 2], "counts": [[4]]},
        {"size": [0, 2], "counts": []},
        {"size": [1 << 20, 1 << 20], "counts": [1 << 40]},
        {"size": "2", "counts": [4]},
        {"size": [2, 2, 2], "counts": [8]},
    ],
)
def test_runs_that_do_not_fill_the_image_are_refused(segmentation):
    assert compress(segmentation) is None


@given(st.lists(bitmaps, max_size=6))
def test_the_pixels_of_many_masks_are_counted_together(many):
    packed = [coco_mask.encode(np.asfortranarray(bitmap))["counts"] for bitmap in many]
    assert covered_pixels(packed).tolist() == [bitmap.size for bitmap in many]


def test_masks_that_are_no_rle_are_told_from_their_neighbours():
    sound = coco_mask.encode(np.asfortranarray(np.eye(9, dtype=np.uint8)))["counts"]
    broken = [b"", b"P", b"\x7f", b"P" * 40 + b"1"]
    for damage in broken:
        assert covered_pixels([sound, damage, sound]).tolist() == [81, -1, 81]
    assert covered_pixels(broken).tolist() == [-1] * 4
    assert covered_pixels([]).tolist() == []
