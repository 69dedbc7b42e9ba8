"""Weights know the classes that they were trained on: others in their place would be wrong numbers without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.engine.resume_changes import CLASSES, CONFIG
from cvpods_ext.errors import DataError, WeightsError
from cvpods_ext.runtime.files import read_json
from cvpods_ext.tasks.task import find


def require_trained_classes(experiment: Experiment, weights: Path) -> None:
    """WeightsError if the run that wrote `weights` had other classes, or their order, than the experiment has now.

    The config.json beside the weights says which; weights without one are of another program, or older, and pass.
    """
    before, now = _recorded(weights.parent / CONFIG), list(find(experiment.config.task).class_keys(experiment))
    if not before or not now or before == now:
        return
    shorter = min(len(before), len(now))
    position = next((i for i in range(shorter) if before[i] != now[i]), shorter)
    was, is_now = (repr(one[position]) if position < len(one) else "absent" for one in (before, now))
    raise WeightsError(
        f"{weights} was trained on {len(before)} classes and {experiment.name} has {len(now)} now; class {position} "
        f"was {was} and is {is_now}. The training data changed since, so that names and scores would not belong "
        "together: put the classes back, or train again. If only names were changed, copy the file out of its folder "
        "and give the copy by --weights"
    )


def _recorded(path: Path) -> list[Any]:
    """The classes in a config.json, [] where it says nothing of them."""
    try:
        record = read_json(path)
    except DataError:
        return []
    found = record.get(CLASSES) if isinstance(record, dict) else None
    return found if isinstance(found, list) else []
