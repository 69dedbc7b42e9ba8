"""From detections on disk to results.json: metrics, what they hold under, and where they come from."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path
from typing import Any

from cvpods_ext.config import changes
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.config.override import fingerprint
from cvpods_ext.data.catalog import resolve
from cvpods_ext.engine.infer import detections_folder
from cvpods_ext.evaluation.detection.coco_json import open_given
from cvpods_ext.evaluation.detection.detections import are_boxes_only
from cvpods_ext.evaluation.detection.evaluate import evaluate
from cvpods_ext.evaluation.detection.protocol import needs_masks
from cvpods_ext.evaluation.results import Results
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.runtime.environment import commit, versions
from cvpods_ext.runtime.files import sha256_of

logger = logging.getLogger(__name__)


def judge(
    experiment: Experiment, weights: Path, settings: dict[str, Any], devices: str, wall_seconds: float
) -> tuple[Results, Path]:
    """Evaluate the experiment's detections and write results.json; returns the results and the file.

    The file lies beside config.py if this is the experiment as published, else in the output folder: a smoke run or an
    overridden one must not pass for the experiment's result.
    """
    config = experiment.config
    annotations = resolve(config.data.test, experiment.folder).annotations
    evaluation = evaluate(
        annotations,
        detections_folder(experiment),
        config.test.metrics,
        config.test.max_detections,
        config.test.evaluator,
    )
    base = config.base or config
    results = Results(
        experiment=experiment.name,
        dataset=resolve(config.data.test, experiment.folder).name,
        metrics=dict(evaluation),
        settings={**settings, **evaluation.settings},
        changes={key: list(pair) for key, pair in changes(config, base).items()},
        provenance={
            "commit": commit(),
            "config_sha256": fingerprint(config),
            "data_sha256": sha256_of(annotations),
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
    path = (experiment.folder if experiment.is_as_published else experiment.output) / "results.json"
    results.write(path)
    return results, path


def judge_given(experiment: Experiment, source: Path) -> tuple[Results, Path]:
    """Evaluate detections that another program made as if the experiment had: same annotations, limits and tasks.

    `source` is a results json or a folder of shards and gives the results their name. They are written to
    imported/<name>/results.json in the experiment's output. A file of boxes only is judged on boxes only.
    """
    test, files = experiment.config.test, resolve(experiment.config.data.test, experiment.folder)
    output = imported_folder(experiment, source)
    shards = output / "inference" / files.name
    digest = open_given(source, shards)
    tasks = [task for task in test.metrics if not (needs_masks(task) and are_boxes_only(shards))]
    if len(tasks) < len(test.metrics):
        logger.warning("%s holds boxes only: judged on %s", source, " and ".join(tasks) or "nothing")
    evaluation = evaluate(files.annotations, shards, tasks, test.max_detections, test.evaluator)
    results = Results(
        experiment=output.name,
        dataset=files.name,
        metrics=dict(evaluation),
        settings=evaluation.settings,
        provenance={
            "commit": commit(),
            "data_sha256": sha256_of(files.annotations),
            "detections": source.name,
            "detections_sha256": digest,
            "date": _now(),
            "versions": versions(),
        },
    )
    path = output / "results.json"
    results.write(path)
    return results, path


def imported_folder(experiment: Experiment, source: Path) -> Path:
    """Where detections of another program are kept and judged, by the name of their file or folder."""
    return experiment.output / "imported" / source.resolve().stem


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
