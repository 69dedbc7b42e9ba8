import pytest

from cvpods_ext.config import override
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.scale_batch import scaled
from cvpods_ext.errors import ConfigError


def after(config, batch_size):
    return {key: value for key, _, value in scaled(config, batch_size)}


def test_half_the_batch_by_hand():
    schedule = dict(iters=90_000, warmup_iters=1_000, lr=0.02, batch_size=16)
    config = override(DetectionConfig(), schedule=schedule, test=dict(every=15_000))
    assert after(config, 8) == {
        "schedule.batch_size": 8,
        "schedule.lr": 0.01,
        "schedule.iters": 180_000,
        "schedule.warmup_iters": 2_000,
        "checkpoint_every": 10_000,
        "picture_every": 4_000,
        "test.every": 30_000,
    }


def test_adamw_scales_by_the_square_root_and_averages_forget_as_fast_per_image():
    config = override(DetectionConfig(), schedule=dict(optimizer="adamw", lr=1e-4, batch_size=16, ema_decay=0.999))
    values = after(config, 64)
    assert values["schedule.lr"] == pytest.approx(2e-4)
    assert values["schedule.ema_decay"] == pytest.approx(0.999**4)


def test_every_image_is_seen_as_often():
    config = DetectionConfig()
    for batch_size in (2, 12, 64):
        values = {"schedule.iters": config.schedule.iters, **after(config, batch_size)}
        assert values["schedule.iters"] * batch_size == pytest.approx(config.schedule.iters * 16, rel=1e-4)


def test_images_at_once_divide_the_new_batch():
    config = override(DetectionConfig(), schedule=dict(batch_size=16, images_per_device=8))
    assert after(config, 12)["schedule.images_per_device"] == 6
    assert after(config, 7)["schedule.images_per_device"] == 7


def test_the_same_batch_changes_nothing():
    assert scaled(DetectionConfig(), 16) == []


def test_an_empty_batch_is_refused():
    with pytest.raises(ConfigError, match="at least one image"):
        scaled(DetectionConfig(), 0)
