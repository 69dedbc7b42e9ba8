"""Tests in the middle of training: a checkpoint is tested as pods_test would, without any effect on training.

The network under test is another one, read from the file. Killed or stopped in between, the test is finished first
when the run is resumed, from the predictions that are on disk.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace

import torch

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.evaluate import evaluate, families_to_test
from cvpods_ext.engine.infer import infer, test_settings
from cvpods_ext.errors import ConfigError, DataError, WeightsError
from cvpods_ext.evaluation.results import Results
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.environment import device_name
from cvpods_ext.tasks.task import find

logger = logging.getLogger(__name__)

FOLDER = "tests"
Metrics = Mapping[str, Mapping[str, float | None]]


class PeriodicTest:
    """Tests after every `test.every` iterations and at the end of a run; rates checkpoints by `keep_best`.

    Raises ConfigError at once for settings that would fail at the first test; `Task.check` looks at the data.
    """

    def __init__(self, experiment: Experiment, device: torch.device, checkpoints: CheckpointFolder) -> None:
        self._experiment, self._device, self._checkpoints = experiment, device, checkpoints
        self._every, self._iters = experiment.config.test.every, experiment.config.schedule.iters
        if self._every:
            _check(experiment)

    def due(self, iteration: int) -> bool:
        """Whether a test follows `iteration` finished steps."""
        return bool(self._every and iteration) and (iteration % self._every == 0 or iteration == self._iters)

    def run(self, iteration: int) -> Metrics:
        """Test the checkpoint of `iteration`; every process must call it, rank 0 once that is on disk.

        Returns metrics as in results.json, on rank 0 only. What was tested before is read from its results.
        """
        dist.barrier()
        weights = self._checkpoints.of_iteration(iteration)
        if weights is None:
            raise WeightsError(f"no checkpoint of iteration {iteration} in {self._checkpoints.folder} to test")
        trial = _in_its_own_folder(self._experiment, iteration)
        settings = test_settings(trial, weights)
        results = _known_results(trial, settings["weights_sha256"])
        if results is None:
            started = time.monotonic()
            infer(self._device, trial, weights, settings)
            if dist.is_main():
                devices = device_name(self._device.type, dist.world_size())
                results, _ = evaluate(trial, weights, settings, devices, time.monotonic() - started)
                shutil.rmtree(trial.output / "inference")  # gigabytes for LVIS
        metrics: Metrics = {}
        if dist.is_main() and results is not None:
            metrics = results.metrics
            self._rate(iteration, metrics)
        dist.barrier()
        return metrics

    def _rate(self, iteration: int, metrics: Metrics) -> None:
        wanted = self._experiment.config.keep_best
        if not wanted:
            return
        family, metric = find(self._experiment.config.task).metrics.find(wanted)
        value = metrics.get(family.name, {}).get(metric.name)
        if value is None:
            logger.warning("keep_best=%s: the test set has nothing that it could be measured on", wanted)
            return
        self._checkpoints.rate(iteration, value if metric.higher_is_better else -value)
        logger.info("best by %s so far: %s", wanted, self._checkpoints.best())


def _in_its_own_folder(experiment: Experiment, iteration: int) -> Experiment:
    """The same experiment with an output folder for the test of one iteration, apart from the experiment's results."""
    output = experiment.output / FOLDER / f"iter_{iteration:07d}"
    return replace(experiment, config=replace(experiment.config, output=str(output)))


def _known_results(trial: Experiment, weights_sha256: str) -> Results | None:
    try:
        results = Results.read(trial.output / "results.json")
    except DataError:
        return None
    return results if results.provenance.get("weights_sha256") == weights_sha256 else None


def _check(experiment: Experiment) -> None:
    config = experiment.config
    if config.test.ema and not config.schedule.ema_decay:
        raise ConfigError("test.ema=True tests a running average, and none is kept: set schedule.ema_decay")
    families = families_to_test(experiment)
    if config.keep_best:
        family, _ = find(config.task).metrics.find(config.keep_best)
        if family.name not in families:
            raise ConfigError(
                f"keep_best={config.keep_best!r}: test.metrics={families} does not compute {family.name}; add it there"
            )
