"""What a resumed run does otherwise than before: changes are allowed, but never silent."""

from __future__ import annotations

import json
import logging
from typing import Any

from cvpods_ext.config import flatten
from cvpods_ext.config.experiment import Experiment, sources_sha256
from cvpods_ext.engine.identity import WITHOUT_EFFECT
from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import read_json

logger = logging.getLogger(__name__)

CONFIG = "config.json"
TRAINING_SHA256 = "training_set_sha256"
CLASSES = "classes"
_TRAINING_SET = "data.train"


def warn_of_changes(experiment: Experiment, training_set_sha256: str) -> None:
    """Log how settings and sources differ from what config.json in the output folder says of the run so far.

    Raises DataError where the training set has another content while the settings name the same one.
    """
    try:
        before = read_json(experiment.output / CONFIG)
        settings = dict(before["config"])
    except (DataError, ValueError, KeyError, TypeError):
        logger.warning("%s cannot be read: what changed since the run began is unknown", experiment.output / CONFIG)
        return
    now = json.loads(json.dumps(flatten(experiment.config)))
    changed = [key for key in sorted(settings.keys() | now.keys()) if settings.get(key) != now.get(key)]
    if changed := [key for key in changed if _decides_training(key)]:
        lines = [f"\n  {key}={settings.get(key)!r} -> {now.get(key)!r}" for key in changed]
        logger.warning("resuming with other settings than before:%s", "".join(lines))
    if _TRAINING_SET not in changed and before.get(TRAINING_SHA256, training_set_sha256) != training_set_sha256:
        raise _other_content(experiment, now[_TRAINING_SET])
    sources = sources_sha256(experiment.folder)
    if before.get("sources_sha256", sources) != sources:
        logger.warning("resuming with other Python files in %s than before", experiment.folder)


def is_same_run(experiment: Experiment) -> bool:
    """Whether the output folder holds a run of the settings and sources that the experiment has now."""
    try:
        before = read_json(experiment.output / CONFIG)
        settings = dict(before["config"])
    except (DataError, ValueError, KeyError, TypeError):
        return False
    now = json.loads(json.dumps(flatten(experiment.config)))
    differ = [key for key in settings.keys() | now.keys() if settings.get(key) != now.get(key)]
    return not any(map(_decides_training, differ)) and before.get("sources_sha256") == sources_sha256(experiment.folder)


def _other_content(experiment: Experiment, training_set: Any) -> DataError:
    sets = training_set if isinstance(training_set, list) else [training_set]
    names = [_name(one) for one in sets]
    return DataError(
        f"{' or '.join(names)} has another content than when the run in {experiment.output} began, so that this would "
        "be a run of neither. Put it back as it was to go on with --resume. To go on with the new content, save "
        f"it under another name and add {_TRAINING_SET}=...; to start anew from the weights so far, leave --resume out "
        "and add output=... and model.init=FILE"
    )


def _name(training_set: Any) -> str:
    """The annotation file of one's own data, else the image folder; the name of a known data set."""
    if not isinstance(training_set, dict):
        return str(training_set)
    return str(training_set.get("annotations") or training_set.get("images") or training_set)


def _decides_training(key: str) -> bool:
    return key not in WITHOUT_EFFECT and not key.startswith("test.")
