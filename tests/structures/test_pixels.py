"""Resizing by hand, against OpenCV where it is installed, and against torch's floating-point filter."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cvpods_ext.structures.pixels import keep_ratio_size, resize_bilinear, resize_nearest


def random_image(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def test_two_pixels_become_four_by_hand():
    """Centres 0.25, 0.75, 1.25, 1.75 of the old pixels 0.5 and 1.5: weights 1, 3/4, 1/4, 0 of the first."""
    image = torch.tensor([[[0, 100]]], dtype=torch.uint8).expand(3, 1, 2)
    assert resize_bilinear(image, (1, 4)).tolist() == [[[0, 25, 75, 100]]] * 3


def test_shrinking_does_not_blur():
    """Every fourth pixel is seen through the two next to its centre; an antialiased filter would give grey."""
    image = torch.tensor([[[0, 255, 255, 0] * 4]], dtype=torch.uint8).expand(3, 1, 16)
    assert resize_bilinear(image, (1, 4)).tolist() == [[[255] * 4]] * 3


@given(height=st.integers(1, 40), width=st.integers(1, 40), rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_it_is_the_floating_point_filter_within_a_grey_level(height, width, rows, columns):
    image = random_image(height, width, seed=height * width)
    exact = F.interpolate(image[None].double(), size=(rows, columns), mode="bilinear", align_corners=False)[0]
    assert (resize_bilinear(image, (rows, columns)).double() - exact).abs().max() <= 1.0


def test_every_pixel_equals_opencv():
    cv2 = pytest.importorskip("cv2")
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 120, (60, 4), generator=generator).tolist()
    for height, width, rows, columns in [*sizes, [64, 48, 32, 24], [50, 70, 100, 140]]:
        image = random_image(height, width, seed=rows)
        pixels = image.permute(1, 2, 0).contiguous().numpy()
        theirs = cv2.resize(pixels, (columns, rows), interpolation=cv2.INTER_LINEAR)
        assert torch.equal(resize_bilinear(image, (rows, columns)), torch.from_numpy(theirs).permute(2, 0, 1))
        theirs = cv2.resize(pixels[..., 0].copy(), (columns, rows), interpolation=cv2.INTER_NEAREST)
        assert torch.equal(resize_nearest(image[0], (rows, columns)), torch.from_numpy(theirs))


def test_labels_are_never_mixed():
    labels = torch.tensor([[1, 7], [255, 3]], dtype=torch.uint8)
    assert resize_nearest(labels, (3, 4)).tolist() == [[1, 1, 7, 7], [1, 1, 7, 7], [255, 255, 3, 3]]


def test_the_size_keeps_the_ratio():
    assert keep_ratio_size((512, 683), short=512, long=2048) == (512, 683)
    assert keep_ratio_size((480, 2100), short=512, long=2048) == (468, 2048)  # 480 * 2048 / 2100 = 468.1
    assert keep_ratio_size((480, 2100), short=512) == (512, 2240)
    assert keep_ratio_size((1, 4000), short=512, long=2048) == (1, 2048)  # 0.512 pixels would be none
