"""The task contract: all that engine, command line and report know of a task.

A task is one object, the constant `TASK` of a module, found by the name in `Config.task`. Nothing else asks which task
it is. What it measures is its metric table, the constant `METRICS`, which is found without importing torch.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import cvpods_ext.evaluation
import cvpods_ext.tasks
from cvpods_ext.errors import ConfigError
from cvpods_ext.evaluation.metric_table import MetricTable
from cvpods_ext.tasks.image_result import ImageResult, ReadPixels

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from cvpods_ext.config.experiment import Experiment
    from cvpods_ext.data.doctor import Finding
    from cvpods_ext.structures import Batch, Target

Draw = Callable[["Tensor", Any], "np.ndarray"]
"""(3, H, W) uint8 image, and its target or prediction -> (h, w, 3) uint8 picture."""


@dataclass(frozen=True)
class Export:
    """`write` puts predictions into a file, whose name has this `ending`, and returns their number."""

    write: Callable[[Path], int]
    ending: str


Prepare = Callable[["Tensor", int], "tuple[Tensor, Target]"]
"""(3, H, W) uint8 in the channel order of the data, and an id -> image and target without ground truth."""

Describe = Callable[[Any, str, ReadPixels], ImageResult]
"""A final prediction, what the picture is called and how to read it -> the result."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics by family and name, None where nothing was annotated; `settings` are the rules that they hold under."""

    metrics: Mapping[str, Mapping[str, float | None]]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Imported:
    """Predictions of another program: sha256 of the source, and the families that they can be evaluated by."""

    sha256: str
    families: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """An (h, w, 3) uint8 array and its title."""

    title: str
    pixels: np.ndarray


class Meter(Protocol):
    """Follows training through hooks of its own, on the device."""

    def take(self) -> dict[str, float]:
        """Values since the last call, over all processes; every process calls it after the same step."""
        ...


class InferenceBatches(Protocol):
    """The share of the test set of one process; its length is the number of batches."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class PredictionWriter(Protocol):
    """Takes the predictions of one process, image by image."""

    def add(self, prediction: Any) -> None:
        """Append the prediction of one image."""
        ...


class Task(ABC):
    """Ties data, model outputs and evaluation of a task together. Has no state: everything is asked per experiment.

    A model of the task maps a `Batch` to scalars by name in training, of which those called `loss...` are added up and
    differentiated, and to one final prediction per image in evaluation mode.
    """

    metrics: ClassVar[MetricTable]
    evaluation_settings: ClassVar[tuple[str, ...]] = ()
    """Keys of settings that only the evaluation reads: predictions are reused when they change."""

    # Data

    @abstractmethod
    def check(self, experiment: Experiment) -> None:
        """Everything cheap that could fail later in training; called before anything is built or written.

        Raises ConfigError or DataError.
        """

    @abstractmethod
    def check_test(self, experiment: Experiment) -> None:
        """Everything cheap that could fail in a test, at inference or at evaluation.

        Called before inference, and before training with `test.every`. Raises ConfigError or DataError.
        """

    def examine(self, experiment: Experiment, decode: bool) -> Iterator[Finding]:
        """What `pods_data doctor` has to say about the data of the experiment; with `decode` of every image too."""
        yield from ()

    @abstractmethod
    def training_batches(
        self,
        experiment: Experiment,
        model: nn.Module,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
        skipped_file: Path | None = None,
    ) -> Iterator[Batch]:
        """Endless batches of `schedule.images_per_device` images for one process, from `start_iteration` on.

        `model` is what will be trained: what it learns decides which targets it needs. Raises ConfigError or DataError
        if the data set cannot give them.

        They depend on nothing but config and iteration, so that loader processes can be replaced and runs resumed.
        Images that cannot be read are replaced by others and listed in `skipped_file`.
        """

    def training_set_sha256(self, experiment: Experiment) -> str:
        """Digest of the annotations that a run is trained on; "" where a task has none, which is not compared."""
        return ""

    def class_keys(self, experiment: Experiment) -> Sequence[str]:
        """What tells the classes of the training set apart, in label order; () where a task has none to compare."""
        return ()

    @abstractmethod
    def test_set(self, experiment: Experiment) -> str:
        """Name of the test set, under which predictions and results are kept."""

    @abstractmethod
    def test_set_sha256(self, experiment: Experiment) -> str:
        """Digest of the annotations that a test is evaluated on."""

    def test_files(self, experiment: Experiment) -> Sequence[Path]:
        """The image files that a test reads: where one of them was replaced, predictions are not used again."""
        return ()

    @abstractmethod
    def test_batches(
        self, experiment: Experiment, rank: int, world_size: int, done: Collection[int]
    ) -> InferenceBatches:
        """The images of one process, without those whose ids are `done`; together, all ranks see each image once."""

    # Model outputs

    def raw_predictions(self, model: nn.Module, batch: Batch) -> Sequence[Any]:
        """What the device computes for each image of a batch; `finish` does the rest."""
        return model(batch)

    def finish(self, raw: Any, target: Target) -> Any:
        """The final prediction of one image from its raw one; runs in threads beside the device."""
        return raw

    def in_input_frame(self, target: Target) -> Target:
        """A target by which a model predicts in the pixels of its input, since training pictures show that."""
        return target

    def meters(self, experiment: Experiment, model: nn.Module, device: torch.device) -> Sequence[Meter]:
        """What is measured during training beside the model's own values."""
        return ()

    def drawer(self, experiment: Experiment) -> Draw | None:
        """Draws targets and predictions on training images; None if the task has no such pictures."""
        return None

    # Pictures that nobody annotated

    def prepare(self, experiment: Experiment) -> Prepare:
        """How a test gives a picture to a model; it is copied into worker processes."""
        raise ConfigError(f"the task {experiment.config.task} predicts on its test set only, not on single pictures")

    def describe(self, experiment: Experiment) -> Describe:
        """Final predictions with the names of classes, for people; reads no images and no annotations of a test."""
        raise ConfigError(f"the task {experiment.config.task} has no results of single pictures")

    def features(self, model: nn.Module, batch: Batch) -> Tensor:
        """(B, D) of a batch, one vector for each image."""
        raise ConfigError(f"a {type(model).__name__} has no feature vector of an image")

    # Predictions on disk

    @abstractmethod
    def predictions(self, experiment: Experiment, folder: Path) -> Predictions:
        """The predictions of the experiment's test set in `folder`, which need not exist."""

    @abstractmethod
    def prediction_settings(self, experiment: Experiment) -> dict[str, Any]:
        """The settings of a test that stand in results.json, as JSON values; `engine.identity` compares all others."""

    # Dumps of a training step

    @abstractmethod
    def pack_target(self, target: Any) -> dict[str, Any]:
        """A target as plain values and tensors, which load with `weights_only=True`."""

    @abstractmethod
    def unpack_target(self, packed: Mapping[str, Any]) -> Target:
        """The inverse of `pack_target`."""


class Predictions(ABC):
    """Predictions of one test in a folder, written by all processes of a run, each file complete or absent."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.experiment, self.folder = experiment, folder

    @abstractmethod
    def completed(self) -> set[int]:
        """Ids of the images that need not be predicted again."""

    def set_damaged_aside(self) -> list[Path]:
        """Rename files that were cut short, so that their images are predicted again; returns the new names."""
        return []

    @abstractmethod
    def settings(self) -> list[Mapping[str, Any]]:
        """The settings that each file was written with; [] where there is none."""

    @abstractmethod
    def writer(self, rank: int, settings: Mapping[str, Any]) -> AbstractContextManager[PredictionWriter]:
        """Streams the predictions of one process to disk, and keeps `settings` (JSON values) with them.

        Leaving it completes the last file, also on KeyboardInterrupt; a crash loses at most one file.
        """

    @abstractmethod
    def evaluate(self, families: Sequence[str]) -> Evaluation:
        """Metrics of these families of the metric table. Raises DataError for files of another data set."""

    def evaluated_beside(self, num_images: int) -> AbstractContextManager[None]:
        """Around inference of `num_images` images: prepares the evaluation of what is written, changing no result."""
        return nullcontext()

    def pictures(self, count: int) -> list[Picture]:
        """Ground truth and predictions of about `count` images, in turns."""
        return []

    def import_from(self, source: Path) -> Imported:
        """Fill the folder from the predictions of another program."""
        raise ConfigError(f"predictions of other programs cannot be read for the task {self.experiment.config.task}")

    def exports(self) -> Mapping[str, Export]:
        """Formats of other programs: "results", which the field exchanges, and "dataset", a data set with scores."""
        return {}

    def export(self, kind: str) -> Export:
        """One of the `exports`; ConfigError if the task has no such format."""
        if kind not in self.exports():
            known = ", ".join(self.exports()) or "none"
            raise ConfigError(f"the task {self.experiment.config.task} exports no {kind} (formats: {known})")
        return self.exports()[kind]


def find(name: str) -> Task:
    """The task called `name`: a module of this package's `tasks`, or, with a dot, any importable module.

    Raises ConfigError if there is none.
    """
    module = _import(name if "." in name else f"{__package__}.{name}", name)
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise ConfigError(f"task {name!r}: {module.__name__} defines no TASK, an object of a subclass of Task")
    return task


def metric_table(name: str, only_known: bool = False) -> MetricTable:
    """The metric table of a task, without importing torch for tasks of this package.

    A task of this package keeps it in `evaluation.<name>`, any other in the module that its name says. `only_known`
    is for names that come from a file: no module outside this package is imported for them. Raises ConfigError if there
    is no table.
    """
    if only_known and "." in name and name not in sys.modules:
        raise ConfigError(
            f"results of the task {name!r}, which is not part of this package: import its module first, for example "
            f"python -c 'import {name}; from cvpods_ext.cli.compare import main; main()'"
        )
    module = _import(name if "." in name else f"{cvpods_ext.evaluation.__name__}.{name}", name)
    table = getattr(module, "METRICS", None)
    if not isinstance(table, MetricTable):
        raise ConfigError(f"task {name!r}: {module.__name__} defines no METRICS, the metric table of the task")
    return table


def _import(module: str, name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"task {name!r} is no name of a module")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # a module that the task needs
        raise ConfigError(
            f"unknown task {name!r}: there is no module {error.name} (known: {', '.join(known_tasks())}; a task of "
            "your own is named by its importable module, with a dot)"
        ) from None


def known_tasks() -> list[str]:
    """Names of the tasks of this package."""
    evaluated = {module.name for module in pkgutil.iter_modules(cvpods_ext.evaluation.__path__)}
    return [module.name for module in pkgutil.iter_modules(cvpods_ext.tasks.__path__) if module.name in evaluated]
