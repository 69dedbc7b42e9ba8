"""A whole test from Python, in this process: what `pods_test` does on one device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from cvpods_ext.config import playground
from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.engine import evaluate as evaluation
from cvpods_ext.engine.infer import infer, predictions_of, test_settings, weights_to_test
from cvpods_ext.engine.predictor import device_of
from cvpods_ext.engine.trained_classes import require_trained_classes
from cvpods_ext.evaluation.results import Results
from cvpods_ext.runtime.environment import device_name
from cvpods_ext.runtime.run_lock import lock_of_test
from cvpods_ext.tasks.task import find


def evaluate(
    experiment: str | Path,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    overrides: Sequence[str] = (),
    detections: str | Path | None = None,
) -> Results:
    """Test an experiment, a folder or a name of the playground, or evaluate `detections` that another program made.

    Returns what results.json holds, which is written as by `pods_test`: `metrics["segm"]["APr"]` in percent, None where
    there is no ground truth. Predictions on disk of the same weights, settings and data are continued. `detections` is
    a results json or a folder of shards. Raises ConfigError, DataError or WeightsError.
    """
    loaded = load_experiment(playground.find(experiment), overrides)
    if detections is not None:
        source = Path(detections)
        folder = evaluation.imported_folder(loaded, source)
        with lock_of_test(folder):
            return evaluation.evaluate_imported(loaded, source, predictions_of(loaded, folder))[0]
    return _test(loaded, weights, device_of(device))


def _test(experiment: Experiment, given: str | Path | None, device: torch.device) -> Results:
    evaluation.families_to_test(experiment)
    find(experiment.config.task).check_test(experiment)
    weights = weights_to_test(experiment, None if given is None else str(given))
    require_trained_classes(experiment, weights)
    settings = test_settings(experiment, weights)
    started = time.monotonic()
    with lock_of_test(experiment.output):
        infer(device, experiment, weights, settings)
        seconds = time.monotonic() - started
        return evaluation.evaluate(experiment, weights, settings, device_name(device.type, 1), seconds)[0]
