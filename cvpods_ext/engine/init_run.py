"""What happens once before a run: weights are found and loaded, the config is written down."""

from __future__ import annotations

import logging

from torch import nn

from cvpods_ext.config import changes, flatten
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.config.override import fingerprint
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.locate import locate
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.runtime.environment import commit, versions
from cvpods_ext.runtime.files import write_json

logger = logging.getLogger(__name__)


def initial_weights(model: nn.Module, experiment: Experiment) -> bool:
    """Load what `model.init` names into `model` and log the load report; returns whether there was anything to load.

    A smoke run goes on from scratch where a pretrained file is absent, since it only shows that the parts fit together;
    the first stage of a two-stage experiment it does need. Raises WeightsError otherwise.
    """
    init = experiment.config.model.init
    try:
        path = locate(init, experiment.folder, smoke=experiment.smoke)
    except WeightsError:
        if not experiment.smoke or init.startswith("experiment:"):
            raise
        logger.warning("smoke run: %s is not on this machine and is done without", init)
        path = None
    if path is None:
        logger.info("training from scratch (model.init=%s)", init)
        return False
    report = load_into(model, read(path), source=str(path), skip=experiment.config.model.init_skip)
    logger.info("%s", report.summary())
    return True


def save_config(experiment: Experiment) -> None:
    """Write the effective config, its difference from the base, and the environment into the output folder."""
    config = experiment.config
    base = config.base or config
    write_json(
        experiment.output / "config.json",
        {
            "experiment": experiment.name,
            "config_sha256": fingerprint(config),
            "changes": {key: list(pair) for key, pair in changes(config, base).items()},
            "overrides": list(experiment.overrides),
            "smoke": experiment.smoke,
            "config": flatten(config),
            "commit": commit(),
            "versions": versions(),
        },
    )
    changed = ", ".join(f"{key}={now!r}" for key, (_, now) in changes(config, base).items())
    logger.info("settings that differ from the base: %s", changed or "none")
