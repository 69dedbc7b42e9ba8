"""Augmentations by timm's names: every level of every operation works with the Pillow that is installed."""

import numpy as np
import pytest
from PIL import Image
from timm.data import auto_augment as timm_augment

from cvpods_ext.data.auto_augment import _operations, augmentation, posterize
from cvpods_ext.data.classification_transforms import TrainingTransform, drawing_from
from cvpods_ext.errors import ConfigError

FILL = (124, 116, 104)
POLICIES = ("rand-m9-mstd0.5-inc1", "rand-m20-n3", "original", "originalr", "v0", "v0r", "3a", "augmix-m5-w4-d2")


def photo(side=40):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_operation_works_at_every_level(policy):
    made = augmentation(policy, 40, FILL)
    operations = _operations(made)
    assert operations
    for operation in operations:
        operation.prob, operation.magnitude_std = 1.0, 0
        for magnitude in range(11):
            operation.magnitude = magnitude
            assert operation(photo()).size == (40, 40), f"{operation} at {magnitude}"


def test_no_bits_leave_black_and_others_are_pillows():
    assert not np.asarray(posterize(photo(), 0)).any()
    for bits in (1, 4, 8):
        assert np.array_equal(np.asarray(posterize(photo(), bits)), np.asarray(timm_augment.posterize(photo(), bits)))


def test_the_recipe_of_the_published_weights_meets_no_error_in_thousands_of_images():
    transform = TrainingTransform(24, auto_augment="rand-m9-mstd0.5-inc1")
    rng = np.random.default_rng(0)
    image = photo(32)
    for _ in range(4000):
        assert transform(image, rng).shape == (3, 24, 24)


def test_apart_from_black_pictures_it_is_timms_augmentation():
    ours = augmentation("rand-m9-mstd0.5-inc1", 40, FILL)
    settings = {"translate_const": 18, "img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    theirs = timm_augment.rand_augment_transform("rand-m9-mstd0.5-inc1", settings)
    for seed in range(200):
        results = []
        for made in (ours, theirs):
            with drawing_from(np.random.default_rng(seed)):
                results.append(np.asarray(made(photo())))
        assert np.array_equal(*results)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="no policy of timm"):
        augmentation("rand-x9", 40, FILL)
    for ignored_by_timm in ("rand-zz", "rand-m9-inc", "rand-", "rand-m9-mstd"):
        with pytest.raises(ConfigError, match="no policy of timm"):
            augmentation(ignored_by_timm, 40, FILL)
    for sound in ("rand", "rand-m9-mstd0.5-inc1", "rand-n3-p0.7-tweights"):
        augmentation(sound, 40, FILL)
    with pytest.raises(ConfigError, match="no policy of timm"):
        augmentation("nothing", 40, FILL)
