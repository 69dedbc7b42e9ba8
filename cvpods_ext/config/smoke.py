"""What `--smoke` does to an experiment: the same code on a few small images, in about a minute on a CPU."""

from __future__ import annotations

from cvpods_ext.config.override import override
from cvpods_ext.config.schema import Config


def shrink(config: Config) -> Config:
    """Small images, ten steps, eight images; everything else stays as in the experiment."""
    data, schedule = config.data, config.schedule
    side = min(256, data.lsj_side)  # a transformer's square: one window of 16 patches
    return override(
        config,
        data=dict(
            train_sizes=(min(128, *data.train_sizes),),
            train_max_size=min(192, data.train_max_size),
            lsj_side=side,
            test_size=side or min(128, data.test_size),
            test_max_size=side or min(192, data.test_max_size),
            max_images=8,
            workers=0,
        ),
        schedule=dict(
            iters=min(10, schedule.iters),
            warmup_iters=min(5, schedule.warmup_iters),
            batch_size=2,
            images_per_device=2,
            # A few steps from scratch at the full rate tell nothing; one tenth keeps every loss finite.
            lr=schedule.lr / 10,
            clip_norm=1.0,
            precision="fp32",  # a CPU only emulates half precision
        ),
        checkpoint_every=5,
        log_every=1,
        picture_every=5,
    )
