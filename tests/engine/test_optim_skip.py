"""A step with a gradient that is not finite must leave model and optimizer as they were, and so must all after it."""

import pytest
import torch
from torch import nn

from cvpods_ext.config import override
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.engine.distributed.parallel import ParallelModel
from cvpods_ext.engine.optim import build_optimizer
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.engine.step import Step
from cvpods_ext.engine.step_values import NonFiniteError
from cvpods_ext.structures import Batch, Targets


class Line(nn.Linear):
    """Its gradient is what the image holds."""

    def forward(self, batch):
        return {"loss": super().forward(batch.images[0].double().to(self.weight.dtype)).sum()}


def batch(value):
    target = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 1, (1, 2), (1, 2))
    return Batch([torch.full((1, 2), value)], [target])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_nothing_moves_from_the_first_gradient_on_that_is_not_finite(optimizer):
    settings = dict(batch_size=1, images_per_device=1, optimizer=optimizer, weight_decay=0.1, clip_norm=1.0)
    config = override(DetectionConfig(), schedule=settings)
    model = Line(2, 1)
    state = TrainingState(model, build_optimizer(model, config.schedule), torch.amp.GradScaler("cpu", enabled=False))
    step = Step(ParallelModel(model), state, config, torch.device("cpu"))
    values = iter([1.0, float("inf"), 1.0])
    batches = iter(batch(value) for value in values)
    before = model.weight.detach().clone()
    step.run(0, 0.1, batches, stop=False)
    assert not torch.equal(model.weight, before)
    good = state.capture(1)
    step.losses.collect()
    step.run(1, 0.1, batches, stop=False)
    step.run(2, 0.1, batches, stop=False)  # on a GPU the error is raised this late
    with pytest.raises(NonFiniteError, match="at iteration 1"):
        step.losses.collect()
    now = state.capture(1)
    assert all(torch.equal(now["model"][name], value) for name, value in good["model"].items())
    for index, moments in good["optimizer"]["state"].items():
        for name, value in moments.items():
            same = now["optimizer"]["state"][index][name]
            assert value is same is None or torch.equal(same, value), (index, name)
