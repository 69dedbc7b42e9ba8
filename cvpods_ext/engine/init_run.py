"""What happens once before a run: a checkpoint or weights are found and loaded, the config is written down."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvpods_ext.config import changes, flatten
from cvpods_ext.config.experiment import Experiment, sources_sha256
from cvpods_ext.config.override import fingerprint
from cvpods_ext.config.run_options import RunOptions
from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.distributed.parallel import ParallelModel, compile_backbone
from cvpods_ext.engine.earlier_run import put_back
from cvpods_ext.engine.ema import WeightAverage
from cvpods_ext.engine.optim import build_optimizer, select_trainable
from cvpods_ext.engine.resume_changes import CLASSES, CONFIG, TRAINING_SHA256
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.errors import TrainingError, WeightsError
from cvpods_ext.modeling.frozen_norms import has_frozen_norms, measure_frozen_norms
from cvpods_ext.modeling.weights.addresses import is_address
from cvpods_ext.modeling.weights.fetch import obtain
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.locate import locate
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.environment import commit, versions
from cvpods_ext.runtime.files import write_json
from cvpods_ext.tasks.task import Task, find

logger = logging.getLogger(__name__)


def state_to_continue(checkpoints: CheckpointFolder, options: RunOptions) -> dict[str, Any] | None:
    """The checkpoint to go on from, None for a fresh start; whatever a killed process left half-done is undone first.

    Raises WeightsError if no checkpoint is sound, TrainingError if the processes of the run see different ones.
    """
    if dist.is_main():
        checkpoints.sweep()
        put_back(checkpoints.folder)
    dist.barrier()
    resume = options.resume or (options.restarted and checkpoints.is_of_this_launch())
    state = checkpoints.latest() if resume else None
    iteration = state["iteration"] if state is not None else 0
    if not dist.agree(iteration):
        raise TrainingError(
            f"the processes of this run do not see the same checkpoints (here: iteration {iteration} in "
            f"{checkpoints.folder}). With several machines the output folder must be on a shared disk"
        )
    if resume and state is None:
        logger.info("nothing to resume in %s: starting at iteration 0", checkpoints.folder)
    return state


def build(experiment: Experiment, task: Task, device: torch.device, fresh: bool) -> tuple[ParallelModel, TrainingState]:
    """The model on its device and what trains it; `model.init` is found or fetched, and loaded, if the run is `fresh`.

    Raises ConfigError, WeightsError or StorageError, see `initial_file`.
    """
    config, schedule = experiment.config, experiment.config.schedule
    initial = initial_file(experiment) if fresh else None
    torch.manual_seed(config.seed)  # every process builds the same model
    model = experiment.build_model()
    select_trainable(model, config.model.train_only)
    loaded = not fresh or initial_weights(model, experiment, initial)
    model.to(device).train()
    if schedule.compile:
        compile_backbone(model)
    if not loaded and has_frozen_norms(model):
        # The same first batch in every process, hence the same statistics.
        measure_frozen_norms(model, next(task.training_batches(experiment, model)).to(device))
    parallel = ParallelModel(model, shard=schedule.sharding == "shard")
    optimizer = build_optimizer(model, schedule)
    scaler = torch.amp.GradScaler(device.type, enabled=schedule.precision == "fp16")
    average = WeightAverage(model, schedule.ema_decay) if schedule.ema_decay else None
    return parallel, TrainingState(model, optimizer, scaler, average)


def initial_file(experiment: Experiment) -> Path | None:
    """The file that `model.init` names, fetched once for all processes if it is an address; None to start from scratch.

    A smoke run fetches nothing and goes on from scratch where a pretrained file is absent, since it only shows that
    the parts fit together; the first stage of a two-stage experiment it does need. Raises WeightsError otherwise.
    """
    init = experiment.config.model.init
    if is_address(init) and not experiment.smoke:
        with dist.main_first():
            return obtain(init, experiment.folder)
    try:
        return locate(init, experiment.folder, smoke=experiment.smoke)
    except WeightsError:
        if not experiment.smoke or init.startswith("experiment:"):
            raise
        logger.warning("smoke run: %s is not on this machine and is done without", init)
    return None


def initial_weights(model: nn.Module, experiment: Experiment, path: Path | None) -> bool:
    """Load the file `path` of `model.init` into `model` and log the load report; whether there was anything to load.

    Raises WeightsError for a file that is none, or that fits nowhere.
    """
    if path is None:
        logger.info("training from scratch (model.init=%s)", experiment.config.model.init)
        return False
    report = load_into(model, read(path), source=str(path), skip=experiment.config.model.init_skip)
    logger.info("%s", report.summary())
    return True


def save_config(experiment: Experiment, training_set_sha256: str) -> None:
    """Write the effective config, its difference from the base, data and environment into the output folder."""
    config = experiment.config
    differences = changes(config, config.base or config)
    write_json(
        experiment.output / CONFIG,
        {
            "experiment": experiment.name,
            "task": config.task,
            "config_sha256": fingerprint(config),
            "sources_sha256": sources_sha256(experiment.folder),
            TRAINING_SHA256: training_set_sha256,
            CLASSES: list(find(config.task).class_keys(experiment)),
            "changes": {key: list(pair) for key, pair in differences.items()},
            "overrides": list(experiment.overrides),
            "smoke": experiment.smoke,
            "config": flatten(config),
            "commit": commit(),
            "versions": versions(),
        },
    )
    lines = [f"\n  {key}={now!r}" for key, (_, now) in differences.items()]
    logger.info("settings that differ from the base:%s", "".join(lines) or " none")
