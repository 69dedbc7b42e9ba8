"""Augmentation of images and label maps; the recorded pipeline is met in modeling/segmentation/test_upernet_parity."""

import colorsys

import numpy as np
import pytest
import torch

from cvpods_ext.data import segmentation_transforms as transforms
from cvpods_ext.structures.segmentation import LabelMap


def sample(height=40, width=60, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (height, width), generator=generator, dtype=torch.uint8)
    return image, LabelMap(labels, 7, (height, width), (height, width))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_image_and_labels_move_together():
    """Labels are written into the image; after resize, crop and flip they must still agree where nothing is mixed."""
    _, target = sample()
    labels = (torch.arange(40)[:, None] // 20 * 2 + torch.arange(60)[None] // 30).byte()  # four large regions
    target = LabelMap(labels, 7, (40, 60), (40, 60))
    image = (labels * 80).expand(3, -1, -1)
    for seed in range(20):
        moved, changed = image, target
        for transform in transforms.training_transforms(32, short=32, long=128)[:3]:
            moved, changed = transform(moved, changed, rng(seed))
        assert moved.shape[1:] == changed.labels.shape == changed.size
        assert changed.original_size == (40, 60)
        assert ((moved[0] == changed.labels * 80).float().mean()) > 0.9


def test_the_scale_is_drawn_between_half_and_twice():
    image, target = sample()
    sides = {min(transforms.RandomResize(100, 1000)(image, target, rng(seed))[1].size) for seed in range(200)}
    assert min(sides) in range(50, 56)
    assert max(sides) in range(194, 200)


def test_a_crop_is_drawn_again_while_one_class_covers_it():
    """Left half one class, right half noise: accepted crops reach into the noise."""
    image, target = sample()
    target.labels[:, :30] = 0
    crop = transforms.RandomCrop(10)
    for seed in range(30):
        labels = crop(image, target, rng(seed))[1].labels
        assert crop.is_varied(labels)


@pytest.mark.parametrize(
    ("labels", "varied"),
    [
        ([0, 0, 0, 0], False),
        ([0, 0, 0, 1], False),  # exactly three quarters
        ([0, 0, 1, 1], True),
        ([0, 0, 0, 1, 255, 255], False),  # what is ignored does not count
        ([0, 255, 255, 255], False),
        ([255, 255], False),
        ([0, 1, 255, 255], True),
    ],
)
def test_what_counts_as_varied(labels, varied):
    assert transforms.RandomCrop(8).is_varied(torch.tensor([labels], dtype=torch.uint8)) is varied


def test_an_image_smaller_than_the_crop_stays_as_it_is():
    image, target = sample(5, 6)
    cropped, changed = transforms.RandomCrop(8)(image, target, rng())
    assert torch.equal(cropped, image)
    assert torch.equal(changed.labels, target.labels)


def test_mirroring_turns_both():
    image, target = sample(2, 3)
    mirrored, changed = transforms.MirrorPixels(1.0)(image, target, rng())
    assert torch.equal(mirrored, image.flip(2))
    assert torch.equal(changed.labels, target.labels.flip(1))
    assert transforms.MirrorPixels(0.0)(image, target, rng())[0] is image


def test_hue_saturation_value_by_the_formulas():
    """Against colorsys in floating point, within the rounding of 180 hues and 255 saturations."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8)
    hsv = transforms.to_hsv(pixels).astype(float)
    for y, x in np.ndindex(20, 30):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[:, y, x] / 255))
        difference = abs(hsv[0, y, x] - 180 * hue)
        assert min(difference, 180 - difference) <= 0.6  # reciprocals have 12 bits
        assert abs(hsv[1, y, x] - 255 * saturation) <= 0.51
        assert hsv[2, y, x] == round(255 * value)
        back = transforms.from_hsv(transforms.to_hsv(pixels))[:, y, x]
        exact = np.array(colorsys.hsv_to_rgb(hsv[0, y, x] / 180, hsv[1, y, x] / 255, hsv[2, y, x] / 255)) * 255
        assert np.all((exact - back > -0.01) & (exact - back < 1.01))


def test_colours_by_hand():
    grey = np.full((3, 1, 1), 100, np.uint8)
    assert transforms.scale_and_shift(grey, 1.5, 0.9).ravel().tolist() == [150] * 3  # the fraction is cut off
    assert transforms.scale_and_shift(grey, 3.0, 0.0).ravel().tolist() == [255] * 3
    assert transforms.scale_and_shift(grey, 1.0, -101.0).ravel().tolist() == [0] * 3
    red = np.array([255, 0, 0], np.uint8).reshape(3, 1, 1)
    assert transforms.change_hue(red, 60).ravel().tolist() == [0, 255, 0]  # a third of the circle
    assert transforms.change_hue(red, -60).ravel().tolist() == [0, 0, 255]
    paler = transforms.change_saturation(red, 0.5).ravel().tolist()
    assert paler in ([255, 127, 127], [255, 128, 128])  # 255 * (1 - 127 / 255), on the edge of the cut
    assert transforms.change_saturation(grey, 1.5).ravel().tolist() == [100] * 3


def test_hsv_equals_opencv():
    cv2 = pytest.importorskip("cv2")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 256), dtype=np.uint8)
    theirs = cv2.cvtColor(np.ascontiguousarray(pixels.transpose(1, 2, 0)), cv2.COLOR_RGB2HSV)
    assert np.array_equal(transforms.to_hsv(pixels), theirs.transpose(2, 0, 1))
    back = cv2.cvtColor(theirs, cv2.COLOR_HSV2RGB).transpose(2, 0, 1).astype(int)
    difference = np.abs(transforms.from_hsv(transforms.to_hsv(pixels)) - back)
    assert difference.max() <= 1  # processors without its vector code round instead of cutting off


def test_a_sample_depends_on_the_generator_alone():
    image, target = sample()
    first, second = (run(image, target, 3) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1].labels, second[1].labels)
    assert not torch.equal(first[0], run(image, target, 4)[0])


def run(image, target, seed):
    generator = rng(seed)
    for transform in transforms.training_transforms(16, short=32, long=128):
        image, target = transform(image, target, generator)
    return image, target
