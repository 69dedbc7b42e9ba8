"""From predictions on disk to results.json: metrics, what they hold under, and where they come from."""

from __future__ import annotations

import datetime
import logging
import os
from pathlib import Path
from typing import Any

from cvpods_ext.config import changes
from cvpods_ext.config.experiment import Experiment, sources_sha256
from cvpods_ext.config.override import fingerprint
from cvpods_ext.engine.identity import IMAGE_SIZES
from cvpods_ext.engine.infer import predictions_of
from cvpods_ext.evaluation.results import Results
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.runtime.environment import commit, versions
from cvpods_ext.tasks.task import Predictions, find

logger = logging.getLogger(__name__)


def evaluate(
    experiment: Experiment, weights: Path, settings: dict[str, Any], devices: str, wall_seconds: float
) -> tuple[Results, Path]:
    """Evaluate the experiment's predictions and write results.json; returns the results and the file.

    The file lies beside config.py if this is the experiment as published, else in the output folder: a smoke run or an
    overridden one must not pass for the experiment's result.
    """
    config, task = experiment.config, find(experiment.config.task)
    predictions = predictions_of(experiment)
    found = predictions.evaluate(families_to_test(experiment))
    results = Results(
        experiment=experiment.name,
        task=config.task,
        dataset=task.test_set(experiment),
        metrics=found.metrics,
        settings={**settings, **found.settings},
        changes={key: list(pair) for key, pair in changes(config, config.base or config).items()},
        provenance={
            "commit": commit(),
            "config_sha256": fingerprint(config),
            "sources_sha256": sources_sha256(experiment.folder),
            "data_sha256": task.test_set_sha256(experiment),
            **_recorded_with(predictions),
            "seed": config.seed,
            "weights": weights.name,
            "weights_sha256": settings["weights_sha256"],
            "iteration": read(weights).metadata.get("iteration"),
            "devices": devices,
            "test_wall_seconds": round(wall_seconds, 1),
            "date": _now(),
            "smoke": experiment.smoke,
            "overrides": list(experiment.overrides),
            "versions": versions(),
        },
    )
    path = results_file(experiment)
    results.write(path)
    return results, path


def _recorded_with(predictions: Predictions) -> dict[str, Any]:
    """What the predictions say of the image files that they were made of, {} for none."""
    made_with = next(iter(predictions.settings()), {})
    return {IMAGE_SIZES: made_with[IMAGE_SIZES]} if IMAGE_SIZES in made_with else {}


def results_file(experiment: Experiment) -> Path:
    """Where the results of a test belong, see `evaluate`."""
    return (experiment.folder if experiment.is_as_published else experiment.output) / "results.json"


def imported_folder(experiment: Experiment, source: Path) -> Path:
    """Where the predictions of another program are kept, in the experiment's output; `source` names the folder."""
    return experiment.output / "imported" / Path(os.path.realpath(source)).stem


def evaluate_imported(experiment: Experiment, source: Path, predictions: Predictions) -> tuple[Results, Path]:
    """Evaluate what another program predicted as if the experiment had: same annotations, limits and metrics.

    `predictions` are empty ones below `imported_folder`, which are filled; results.json is written into that folder.
    Returns the results and the file. Raises ConfigError if the task reads no other program's files.
    """
    task, output = find(experiment.config.task), imported_folder(experiment, source)
    imported = predictions.import_from(source)
    found = predictions.evaluate(imported.families)
    results = Results(
        experiment=output.name,
        task=experiment.config.task,
        dataset=task.test_set(experiment),
        metrics=found.metrics,
        settings=found.settings,
        provenance={
            "commit": commit(),
            "data_sha256": task.test_set_sha256(experiment),
            "detections": source.name,
            "detections_sha256": imported.sha256,
            "date": _now(),
            "versions": versions(),
        },
    )
    path = output / "results.json"
    results.write(path)
    return results, path


def families_to_test(experiment: Experiment) -> tuple[str, ...]:
    """The families of the metric table that `test.metrics` names, those of the official protocol if it names none.

    Raises ConfigError for one that the task does not know.
    """
    table = find(experiment.config.task).metrics
    return tuple(table.family(name).name for name in experiment.config.test.metrics) or table.default


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
