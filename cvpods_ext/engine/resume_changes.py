"""What a resumed run does otherwise than before: changes are allowed, but never silent."""

from __future__ import annotations

import json
import logging

from cvpods_ext.config import flatten
from cvpods_ext.config.experiment import Experiment, sources_sha256
from cvpods_ext.engine.identity import WITHOUT_EFFECT

logger = logging.getLogger(__name__)

CONFIG = "config.json"


def warn_of_changes(experiment: Experiment) -> None:
    """Log how settings and sources differ from what config.json in the output folder says of the run so far."""
    try:
        before = json.loads((experiment.output / CONFIG).read_text(encoding="utf-8"))
        settings = dict(before["config"])
    except (OSError, ValueError, KeyError, TypeError):
        logger.warning("%s cannot be read: what changed since the run began is unknown", experiment.output / CONFIG)
        return
    now = json.loads(json.dumps(flatten(experiment.config)))
    changed = [
        f"{key}={settings.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(settings.keys() | now.keys())
        if settings.get(key) != now.get(key) and _decides_training(key)
    ]
    if changed:
        logger.warning("resuming with other settings than before: %s", ", ".join(changed))
    sources = sources_sha256(experiment.folder)
    if before.get("sources_sha256", sources) != sources:
        logger.warning("resuming with other Python files in %s than before", experiment.folder)


def _decides_training(key: str) -> bool:
    return key not in WITHOUT_EFFECT and not key.startswith("test.")
