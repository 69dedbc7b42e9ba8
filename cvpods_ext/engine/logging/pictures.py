"""Pictures of what a model that trains predicts, beside what was annotated."""

from __future__ import annotations

import torch
from torch import nn

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.engine.logging.metrics import Monitor
from cvpods_ext.runtime import dist
from cvpods_ext.structures import Batch
from cvpods_ext.tasks.task import Task


class TrainingPictures:
    """Every `picture_every` steps the targets and predictions of one training image, if the task can draw them."""

    def __init__(self, experiment: Experiment, task: Task) -> None:
        self._task, self._every = task, experiment.config.picture_every
        self._draw = task.drawer(experiment) if self._every else None

    def due(self, iteration: int) -> bool:
        """Whether pictures follow `iteration` finished steps."""
        return self._draw is not None and iteration % self._every == 0

    @torch.no_grad()
    def show(self, model: nn.Module, batch: Batch, monitor: Monitor, iteration: int) -> None:
        """Draw the first image of `batch`; every process must call it, since shards of the model must meet."""
        # The picture is drawn in the frame that the model saw, so predictions are asked for in that frame.
        one = Batch(batch.images[:1], [self._task.in_input_frame(batch.targets[0])])
        device = next(model.parameters()).device
        model.eval()
        try:
            with torch.compiler.set_stance("force_eager"):  # not worth compiling the network for one image
                prediction = model(one.to(device))[0]
        finally:
            model.train()
        if dist.is_main() and self._draw is not None:
            monitor.picture("train/targets", self._draw(one.images[0], one.targets[0]), iteration)
            monitor.picture("train/predictions", self._draw(one.images[0], prediction), iteration)
