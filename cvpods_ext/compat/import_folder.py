"""From an old folder to one in our form, which is written only if it gives the same losses."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvpods_ext.compat.folder import OldExperiment, base_of, line_of, load, translation_of
from cvpods_ext.compat.our_network import Network, candidates, net_source
from cvpods_ext.compat.probe import probe_batch
from cvpods_ext.compat.twins import differing_starts, require_alike
from cvpods_ext.config import bases, bases_classification, flatten
from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.config.override import override
from cvpods_ext.config.source import config_source
from cvpods_ext.engine.optim import select_trainable
from cvpods_ext.errors import ConfigError
from cvpods_ext.modeling.frozen_norms import has_frozen_norms, measure_frozen_norms
from cvpods_ext.modeling.layers import BatchNorm2d
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.structures import Batch

TOLERANCE = 1e-5  # relative, of losses that are taken for equal
_RUN = "pods_train --num-gpus 8; pods_test --num-gpus 8"
_TITLES = {"detection": "The detector", "classification": "The classifier"}


@dataclass(frozen=True)
class Imported:
    """The folder that was written, the losses of both on one batch, and what its user must know."""

    folder: Path
    losses: dict[str, float]
    notes: tuple[str, ...]


def import_folder(old: Path, new: Path) -> Imported:
    """Write the experiment of the old folder into the folder `new`, which must not exist or be empty.

    Both networks get the same weights and one drawn batch; nothing is written unless their losses and what they train
    are equal. Raises ConfigError.
    """
    if new.exists() and (not new.is_dir() or any(new.iterdir())):
        raise ConfigError(f"{new} is there already; give the name of a new folder")
    experiment = load(Path(os.path.realpath(old)))
    torch.manual_seed(0)
    model = experiment.build_model().train()
    batch = probe_batch(experiment.config, experiment.folder)
    try:
        if has_frozen_norms(model):
            measure_frozen_norms(model, batch)
        _losses(model, batch)
    except Exception as error:  # whatever the folder's code raises
        place = line_of(error, experiment.folder)
        if not place:
            raise
        raise ConfigError(f"{place}: a step of this folder fails: {type(error).__name__}: {error}") from error
    networks = list(candidates(model, experiment.old))
    new.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{new.name}.", dir=new.parent))
    try:
        losses = _first_equal(experiment, model, batch, networks, place, new)
        if new.exists():
            new.rmdir()
        place.rename(new)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    torch.manual_seed(0)
    fresh = load_experiment(new).build_model()
    torch.manual_seed(0)
    differing = differing_starts(experiment.build_model(), fresh, _our_name)
    return Imported(new, losses, (*_notes(experiment, model, new), *differing))


def _first_equal(
    experiment: OldExperiment, model: nn.Module, batch: Batch, networks: list[Network], place: Path, new: Path
) -> dict[str, float]:
    """Write the first of the networks whose losses are those of `model`; returns them."""
    theirs = _losses(model, batch)
    compared: list[str] = []
    for number, network in enumerate(networks):
        # Folders of their own, since a module is loaded once for each place.
        all_trains, attempt = place / f"parts{number}", place / f"attempt{number}"
        _write(experiment, network, all_trains, new, ())
        trained = _trained(load_experiment(all_trains).build_model(), model)
        _write(experiment, network, attempt, new, trained)
        twin = _ours(attempt, model)
        ours = _losses(twin, batch)
        files = {name: (attempt / name).read_bytes() for name in ("config.py", "net.py")}
        shutil.rmtree(all_trains)
        shutil.rmtree(attempt)
        if ours.keys() == theirs.keys() and all(_equal(ours[name], theirs[name]) for name in ours):
            for name, content in files.items():
                (place / name).write_bytes(content)
            place.chmod(0o777 & ~_umask())
            require_alike(model, twin, batch, _our_name)
            return theirs
        compared.append(", ".join(f"{name} {value:.6g}" for name, value in ours.items()))
    raise ConfigError(
        f"{experiment.folder}: the losses are computed by code of the folder's own, which our losses do not equal.\n"
        f"there: {', '.join(f'{name} {value:.6g}' for name, value in theirs.items())}\n"
        + "\n".join(f"ours:  {text}" for text in compared)
        + "\nThe folder trains as it is; to move it, write its loss as in docs/add_a_method.md"
    )


def _equal(a: float, b: float) -> bool:
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b), 1e-6)


def _ours(folder: Path, old: nn.Module) -> nn.Module:
    """The network of a written folder with the weights of `old`; ConfigError if it trains something else."""
    experiment = load_experiment(folder)
    model = experiment.build_model().train()
    report = load_into(model, old.state_dict(), source="the old folder's network")
    if report.missing or report.skipped:
        raise ConfigError(f"our builders make another network:\n{report.summary()}")
    select_trainable(model, experiment.config.model.train_only)
    for norm, other in zip(_norms(model), _norms(old), strict=True):
        norm.moves_when_frozen = other.moves_when_frozen
    return model


def _norms(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, BatchNorm2d)]


def _losses(model: nn.Module, batch: Batch) -> dict[str, float]:
    torch.manual_seed(1)
    return {name: float(value.detach()) for name, value in model(batch).items() if name.startswith("loss")}


def _write(experiment: OldExperiment, network: Network, folder: Path, new: Path, train_only: tuple[str, ...]) -> None:
    """config.py and net.py in `folder`, as they will lie in `new`."""
    folder.mkdir()
    init = _moved(experiment.config.model.init, experiment.folder, new)
    config = override(experiment.config, model={"init": init, "train_only": train_only})
    heading = f"Moved from the folder {experiment.folder.name} of cvpods.\n\nRun:  {_RUN}"
    (folder / "config.py").write_text(config_source(heading, config), encoding="utf-8")
    (folder / "net.py").write_text(net_source(f"{_TITLES[config.task]} of config.py", network), encoding="utf-8")


def _trained(ours: nn.Module, theirs: nn.Module) -> tuple[str, ...]:
    """Expressions of what trains, () where the network trains it by itself."""
    here = {name for name, p in ours.named_parameters() if p.requires_grad}
    there = {_our_name(name) for name, p in theirs.named_parameters() if p.requires_grad}
    if here == there:
        return ()
    for known in (bases.DISALIGN_PARAMETERS, bases_classification.DISALIGN_PARAMETERS):
        if there == {name for name, _ in ours.named_parameters() if any(re.fullmatch(p, name) for p in known)}:
            return known
    return tuple(re.escape(name) for name in sorted(there))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _our_name(name: str) -> str:
    return name.replace("network.linear.", "head.", 1).replace("network.", "backbone.bottom_up.", 1)


def _moved(init: str, old: Path, new: Path) -> str:
    """A relative path of the old folder as seen from the new one."""
    if init == "none" or "://" in init or init.startswith("experiment:") or os.path.isabs(init):
        return init
    return os.path.relpath(old / init, new)


def _notes(experiment: OldExperiment, model: nn.Module, new: Path) -> list[str]:
    notes = translation_of(experiment.old).describe(experiment.old, base_of(experiment.old), flatten(experiment.config))
    init = experiment.config.model.init
    if init.startswith("experiment:"):
        first = init.removeprefix("experiment:")
        notes.append(f"starts from {init}: import that folder too, as {new.parent / first}, and train it first")
    if any(not norm.weight.requires_grad and norm.moves_when_frozen for norm in _norms(model)):
        notes.append(
            "frozen batch norms keep their statistics in the new folder, where cvpods moves them with every batch"
        )
    return notes
