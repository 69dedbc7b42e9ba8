"""Writers of curves and pictures beside the run's own files: TensorBoard, and Weights & Biases if asked for."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard.writer import SummaryWriter

from cvpods_ext.config import flatten
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.errors import ConfigError
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.files import write_text, writing

_IDENTITY = "wandb_id.txt"


class Writer(Protocol):
    """Takes what a run reports; names are like train/loss_cls and test/segm/AP."""

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Add one point to each curve."""
        ...

    def picture(self, name: str, image: Any, iteration: int) -> None:
        """Show an (H, W, 3) uint8 array."""
        ...

    def close(self) -> None:
        """Write what is left; called once."""
        ...


class TensorBoard:
    """Event files in `folder`; points after `start` of a run that was killed are dropped."""

    def __init__(self, folder: Path, start: int) -> None:
        with writing(folder / "events.out.tfevents"):
            self._writer = SummaryWriter(str(folder), purge_step=start + 1)

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Add one point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, iteration)

    def picture(self, name: str, image: Any, iteration: int) -> None:
        """Show an (H, W, 3) uint8 array."""
        self._writer.add_image(name, image, iteration, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `project`; a resumed run goes on under the identity kept in its output folder.

    The library's own variables apply (WANDB_MODE=offline, WANDB_API_KEY, WANDB_ENTITY, ...). Steps that a killed run
    repeats are the same again, and the library drops them.
    """

    def __init__(self, project: str, experiment: Experiment) -> None:
        self._library = import_wandb()
        file = experiment.output / _IDENTITY
        if not file.is_file():
            write_text(file, uuid.uuid4().hex[:12] + "\n")
        self._run = self._library.init(
            project=project,
            name=experiment.name,
            id=file.read_text(encoding="utf-8").strip(),
            resume="allow",
            dir=str(experiment.output),
            config=flatten(experiment.config),
        )

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        """Add one point to each curve."""
        self._run.log(values, step=iteration)

    def picture(self, name: str, image: Any, iteration: int) -> None:
        """Show an (H, W, 3) uint8 array."""
        self._run.log({name: self._library.Image(image)}, step=iteration)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def open_writers(experiment: Experiment, start: int, wandb: str = "") -> list[Writer]:
    """The writers of a run that starts at iteration `start`; only rank 0 has any."""
    if not dist.is_main():
        return []
    writers: list[Writer] = [TensorBoard(experiment.output, start)]
    return [*writers, WeightsAndBiases(wandb, experiment)] if wandb else writers


def import_wandb() -> Any:
    """The library; a ConfigError says how to get it."""
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(
            "--wandb needs the package wandb, which is not installed: pip install 'cvpods-ext[wandb]' (or pip install "
            "wandb), or train without the flag; TensorBoard files are written anyway"
        ) from None
    return wandb
