"""Windows, strips and scales against loops over pixels and passes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.segmentation import inference
from cvpods_ext.modeling.segmentation.inference import TestScales
from cvpods_ext.structures.pixels import resize_bilinear

CROP = 16
SCALES = TestScales(short=16, long=64, crop=CROP, stride=10)


def logits(crops):
    """A network that sees where in a crop it is: three classes at a quarter of the resolution."""
    side = CROP // 4
    place = torch.linspace(0, 1, side)[None, None, :, None].expand(len(crops), 1, side, side)
    colours = F.avg_pool2d(crops, 4)
    return torch.cat((colours[:, :2] * (1 + place), colours[:, 2:] - place), dim=1)


def normalise(image):
    return image.float() / 255


def photo(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


@given(height=st.integers(1, 70), width=st.integers(1, 70))
def test_windows_cover_every_pixel_and_stay_inside(height, width):
    size = max(height, CROP), max(width, CROP)
    covered = torch.zeros(size)
    for y, x in inference.windows(size, CROP, 10):
        assert 0 <= y <= size[0] - CROP
        assert 0 <= x <= size[1] - CROP
        covered[y : y + CROP, x : x + CROP] += 1
    assert covered.min() >= 1


def test_windows_by_hand():
    assert list(inference.windows((16, 16), 16, 10)) == [(0, 0)]
    assert list(inference.windows((16, 27), 16, 10)) == [(0, 0), (0, 10), (0, 11)]
    assert list(inference.windows((26, 16), 16, 10)) == [(0, 0), (10, 0)]


def test_logits_are_the_mean_over_the_windows_of_a_pixel():
    image = normalise(photo(21, 37))
    found = inference.slide_logits(image, CROP, 10, logits)
    for y, x in ((0, 0), (7, 12), (20, 36), (11, 21)):
        values = []
        for top in (0, 5):  # rows: ceil((21 - 16) / 10) + 1 = 2 windows, the last moved inside
            for left in (0, 10, 20, 21):  # columns: ceil(21 / 10) + 1 = 4
                if 0 <= y - top < CROP and 0 <= x - left < CROP:
                    crop = image[None, :, top : top + CROP, left : left + CROP]
                    whole = F.interpolate(logits(crop), size=(CROP, CROP), mode="bilinear")
                    values.append(whole[0, :, y - top, x - left])
        torch.testing.assert_close(found[:, y, x], torch.stack(values).mean(0))


def test_an_image_narrower_than_a_crop_is_padded_as_in_training():
    """Beyond a ratio of 4 to 1 the shorter side ends below the crop."""
    image = normalise(photo(7, 30))
    found = inference.slide_logits(image, CROP, 10, logits)
    assert found.shape == (3, 7, 30)
    padded = torch.zeros(3, CROP, 30)
    padded[:, :7] = image
    torch.testing.assert_close(found, inference.slide_logits(padded, CROP, 10, logits)[:, :7])


@pytest.mark.parametrize("size", [(3, 100), (100, 3), (1, 1), (16, 65), (40, 40)])
@pytest.mark.parametrize("ratios", [(1.0,), (0.5, 1.0, 1.5)])
def test_images_of_any_shape_get_a_label_for_every_pixel(size, ratios):
    scales = TestScales(short=16, long=64, crop=CROP, stride=10, ratios=ratios, flip=True)
    found = inference.predict(photo(*size), size, scales, normalise, logits)
    assert found.shape == size
    assert found.dtype == torch.uint8
    assert found.max() <= 2


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), height=st.integers(1, 40), width=st.integers(1, 40))
def test_strips_equal_one_resize(rows, columns, height, width):
    x = torch.randn(3, rows, columns, generator=torch.Generator().manual_seed(rows))
    expected = F.interpolate(x[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "_STRIP", 3 * 40 * 4)
        strips = list(inference.resize_in_strips(x, (height, width)))
    assert len(strips) > 1 or height * max(width, columns) * 3 <= 3 * 40 * 4
    torch.testing.assert_close(torch.cat(strips, dim=1), expected, rtol=1e-5, atol=1e-5)


def test_equal_passes_are_computed_once_and_count_as_often():
    scales = TestScales(short=16, long=64, crop=16, stride=10, ratios=(0.5, 0.75, 1.0, 1.25), flip=True)
    assert dict(scales.sizes((20, 30))) == {(16, 24): 3, (20, 30): 1}
    calls = []

    def counted(crops):
        calls.append(len(crops))
        return logits(crops)

    image = photo(20, 30)
    found = inference.probabilities(image, (20, 30), scales, normalise, counted)
    assert sum(calls) == 2 * (2 + 2 * 3)  # (16, 24): 1 x 2 windows; (20, 30): 2 x 3; plain and mirrored
    total = torch.zeros(3, 20, 30)
    for size in ((16, 24), (16, 24), (16, 24), (20, 30)):
        for mirrored in (False, True):
            pixels = normalise(resize_bilinear(image, size))
            pixels = pixels.flip(2) if mirrored else pixels
            raw = inference.slide_logits(pixels, 16, 10, logits)
            soft = F.interpolate(raw[None], size=(20, 30), mode="bilinear")[0].softmax(0)
            total += soft.flip(2) if mirrored else soft
    torch.testing.assert_close(found, total / 8, rtol=1e-5, atol=1e-6)
    labels = inference.predict(image, (20, 30), scales, normalise, logits)
    assert torch.equal(labels, found.argmax(0).to(torch.uint8))


def test_one_pass_needs_no_softmax():
    image = photo(20, 30)
    labels = inference.predict(image, (20, 30), SCALES, normalise, logits)
    assert torch.equal(labels, inference.probabilities(image, (20, 30), SCALES, normalise, logits).argmax(0).byte())


def test_the_whole_image_fits_one_crop():
    scales = TestScales(short=16, long=64, crop=16, stride=10, mode="whole")
    assert dict(scales.sizes((100, 50))) == {(16, 8): 1}
    assert dict(scales.sizes((7, 9))) == {(12, 16): 1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mode": "tile"}, "'slide' or 'whole'"),
        ({"stride": 17}, "pixels between crops"),
        ({"stride": 0}, "stride=0"),
        ({"ratios": ()}, "positive"),
        ({"ratios": (1.0, -1.0)}, "positive"),
    ],
)
def test_wrong_settings_say_what_is_possible(wrong, message):
    with pytest.raises(ConfigError, match=message):
        TestScales(**{"crop": 16, "stride": 10, **wrong})
