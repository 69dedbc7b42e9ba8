"""Debugging aids around the training loop: anomaly detection, deterministic algorithms, a profile."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from cvpods_ext.config.run_options import RunOptions
from cvpods_ext.runtime import dist

logger = logging.getLogger(__name__)

_PROFILE_FROM, _PROFILE_TO = 3, 8  # steps after the start: the first ones warm caches up


@contextmanager
def debug_modes(options: RunOptions) -> Iterator[None]:
    """Switch on what `options` ask for, and back afterwards."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        with torch.autograd.set_detect_anomaly(options.anomaly):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.deterministic = before[1]


class Profile:
    """Writes a Chrome trace (chrome://tracing, ui.perfetto.dev) of steps 3 to 7 of rank 0 to `folder`/trace.json."""

    def __init__(self, folder: Path, enabled: bool) -> None:
        self._file = folder / "trace.json"
        self._steps = 0
        self._profiler: profile | None = None
        if enabled and dist.is_main():
            cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._profiler = profile(activities=[ProfilerActivity.CPU, *cuda], record_shapes=True)

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._profiler is not None and self._steps >= _PROFILE_FROM:
            self._write(self._profiler)  # a run of fewer steps

    def step(self) -> None:
        """Call after every step."""
        self._steps += 1
        if self._profiler is not None and self._steps == _PROFILE_FROM:
            self._profiler.start()
        elif self._profiler is not None and self._steps == _PROFILE_TO:
            self._write(self._profiler)

    def _write(self, profiler: profile) -> None:
        self._profiler = None
        profiler.stop()
        profiler.export_chrome_trace(str(self._file))
        logger.info("profile of %d steps: %s", min(self._steps, _PROFILE_TO) - _PROFILE_FROM, self._file)
