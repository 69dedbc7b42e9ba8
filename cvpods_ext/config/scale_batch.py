"""Train with another batch size: everything that depends on it changes together. Imports no torch."""

from __future__ import annotations

from typing import Any

from cvpods_ext.config.schema import Config
from cvpods_ext.errors import ConfigError


def scaled(config: Config, batch_size: int) -> list[tuple[str, Any, Any]]:
    """(key, value before, value after) of every setting that a batch of `batch_size` images changes.

    With k = new / old batch size: the run and its periods are 1 / k as many iterations, so that as many images are
    seen; SGD learns k times as fast (Goyal et al., https://arxiv.org/abs/1706.02677), AdamW sqrt(k) times (Malladi et
    al., https://arxiv.org/abs/2205.10287); a running average forgets at decay^k (Busbridge et al.,
    https://arxiv.org/abs/2307.13813). Drops are fractions of the run and stay; no value goes below 1 iteration.
    """
    schedule = config.schedule
    if batch_size < 1:
        raise ConfigError(f"--scale-batch {batch_size}: a batch has at least one image")
    k = batch_size / schedule.batch_size

    def fewer(iterations: int) -> int:
        return max(1, round(iterations / k)) if iterations else 0

    after = {
        "schedule.batch_size": batch_size,
        "schedule.images_per_device": _divisor(batch_size, schedule.images_per_device),
        "schedule.lr": schedule.lr * (k if schedule.optimizer == "sgd" else k**0.5),
        "schedule.iters": fewer(schedule.iters),
        "schedule.warmup_iters": fewer(schedule.warmup_iters),
        "schedule.ema_decay": schedule.ema_decay**k if schedule.ema_decay else 0.0,
        "checkpoint_every": fewer(config.checkpoint_every),
        "keep_every": fewer(config.keep_every),
        "test.every": fewer(config.test.every),
        "picture_every": fewer(config.picture_every),
    }
    rows = [(key, _value(config, key), value) for key, value in after.items()]
    return [row for row in rows if row[1] != row[2]]


def _divisor(batch_size: int, wanted: int) -> int:
    """The most images at once, up to `wanted`, that a batch consists of."""
    return next(count for count in range(min(wanted, batch_size), 0, -1) if batch_size % count == 0)


def _value(config: Config, key: str) -> Any:
    section, _, name = key.rpartition(".")
    return getattr(getattr(config, section) if section else config, name)
