"""A trained network that predicts on pictures: files, arrays, PIL images, tensors; the same for every task."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cvpods_ext.config import playground
from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.data import loader, photos
from cvpods_ext.data.dataset import BrokenImage
from cvpods_ext.data.photos import Photos, Picture, to_pixels
from cvpods_ext.engine.infer import load_weights, predict, weights_to_test
from cvpods_ext.engine.trained_classes import require_trained_classes
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.structures import Batch
from cvpods_ext.tasks.image_result import ImageResult
from cvpods_ext.tasks.task import Task, find

logger = logging.getLogger(__name__)

UNTRAINED = "none"


@dataclass(frozen=True)
class Model:
    """An experiment with its network in evaluation mode on a device.

    `network` is the torch module that net.py builds; everything here works on single pictures as a test would.
    """

    experiment: Experiment
    network: nn.Module
    device: torch.device
    weights: Path | None = None
    task: Task = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", find(self.experiment.config.task))

    def predict(self, pictures: Any) -> Any:
        """An `ImageResult` for one picture, a list of them for a list, a folder or a pattern such as "photos/*.jpg".

        A picture is a path, a PIL image, an RGB array (H, W, 3) or a tensor (3, H, W), uint8. DataError for a file that
        cannot be read, ConfigError for other pixels.
        """
        several = _listed(pictures)
        found = list(self.stream(pictures if several is None else several))
        return found[0] if several is None else found

    def stream(self, pictures: Any, workers: int = 0) -> Iterator[ImageResult]:
        """Results one by one in bounded memory; `workers` processes read files ahead. Pictures and errors as above."""
        if workers < 0:
            raise ConfigError(f"workers={workers}: give the number of processes that read files ahead, or 0")
        several, broken = _listed(pictures), list[BrokenImage]()
        found = self.readable([pictures] if several is None else several, workers, broken)
        while not broken and (one := next(found, None)):
            yield one[1]
        if broken:
            raise DataError(broken[0].reason)

    def readable(
        self, pictures: Sequence[Picture], workers: int, broken: list[BrokenImage]
    ) -> Iterator[tuple[int, ImageResult]]:
        """Position and result of every picture that can be read; the others are appended to `broken` on the way.

        The id of a broken picture is its position plus one.
        """
        describe = self.task.describe(self.experiment)
        positions: deque[int] = deque()  # of what is being predicted

        def batches() -> Iterator[Batch]:
            for position, (batch, unread) in enumerate(self._batches(pictures, workers)):
                broken.extend(unread)
                if not unread:
                    positions.append(position)
                    yield batch

        for prediction in predict(self.task, self.network, batches(), self.device):
            position = positions.popleft()
            picture = pictures[position]
            yield position, describe(prediction, _called(picture, position), partial(_rgb, picture))

    def _batches(self, pictures: Sequence[Picture], workers: int) -> Iterator[tuple[Batch, list[BrokenImage]]]:
        dataset = Photos(pictures, self.experiment.config.data.channels, self.task.prepare(self.experiment))
        return loader.single_pictures(dataset, workers)

    def extract_feat(self, pictures: Any) -> Tensor:
        """(N, D) float32 on the CPU, a vector for each picture, as its classifier sees it; ConfigError without one."""
        several = _listed(pictures)
        rows = []
        for batch, unread in self._batches([pictures] if several is None else several, workers=0):
            if unread:
                raise DataError(unread[0].reason)
            with torch.inference_mode():
                rows.append(self.task.features(self.network, batch.to(self.device)).float().cpu())
        return torch.cat(rows)


def load(
    experiment: str | Path,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    overrides: Sequence[str] = (),
) -> Model:
    """A model from an experiment folder, or from the name of one in the playground (`list_models`).

    `weights` is a file or an address, by default the newest of the folder's own run; "published" for those that others
    published for it, which are fetched if they are not here; "none" for a network as net.py starts it.
    `device` is the first GPU by default, else the CPU. `overrides` are settings such as "model.score_threshold=0.5".
    Raises ConfigError or WeightsError.
    """
    loaded = load_experiment(playground.find(experiment), overrides)
    path = None if weights == UNTRAINED else weights_to_test(loaded, None if weights is None else str(weights))
    return model_of(loaded, path, device_of(device))


def device_of(wanted: str | torch.device | None) -> torch.device:
    """The device of that name, the first GPU or the CPU for None; ConfigError for one that cannot be used."""
    try:
        device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"device={str(wanted)!r} cannot be used ({reason}); give 'cpu', 'cuda' or 'cuda:1'") from None
    return device


def model_of(experiment: Experiment, weights: Path | None, device: torch.device) -> Model:
    """A model of a loaded experiment; without `weights` its values are random, which a warning says."""
    find(experiment.config.task).describe(experiment)  # what it needs of the data is told before anything is built
    if weights is not None:
        require_trained_classes(experiment, weights)
    network = experiment.build_model()
    if weights is None:
        logger.warning("%s: no weights are loaded, so what it predicts means nothing", experiment.name)
    else:
        load_weights(network, weights, experiment.config.test.ema)
    return Model(experiment, network.to(device).eval(), device, weights)


def _listed(pictures: Any) -> list[Any] | None:
    """The pictures that a list, a folder or a pattern names; None for one picture."""
    if isinstance(pictures, list | tuple):
        if not pictures:
            raise ConfigError("no pictures are given")
        return list(pictures)
    if isinstance(pictures, str | Path) and not Path(pictures).expanduser().is_file():
        return list(photos.find([pictures]))
    return None


def _called(picture: Any, position: int) -> str:
    return str(picture) if isinstance(picture, str | Path) else f"picture {position + 1}"


def _rgb(picture: Picture) -> np.ndarray:
    return to_pixels(picture, "RGB").numpy()
