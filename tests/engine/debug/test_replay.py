"""A dumped step comes back from disk as it was, and replaying it names the first tensor that is not finite."""

import os

import pytest
import torch
from tiny_experiment import make_data, make_experiment

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.data.detection_loader import training_batches
from cvpods_ext.engine.debug.replay import replay
from cvpods_ext.engine.debug.step_dump import dump_step, load_step
from cvpods_ext.engine.optim import build_optimizer
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.errors import WeightsError


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    root = tmp_path_factory.mktemp("replay")
    folder = make_experiment(root / "experiment", make_data(root), "SoftmaxCrossEntropy()")
    return load_experiment(folder, [f"output={root / 'out'}", "schedule.lr=0.5"])


def dumped(experiment, change=lambda model: None, iteration=7):
    """Dump a step after `change` was made to a fresh model; returns its folder and its batches."""
    model = experiment.build_model()
    with torch.no_grad():
        change(model)
    optimizer = build_optimizer(model, experiment.config.schedule)
    state = TrainingState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))
    source = training_batches(experiment.config, experiment.folder)
    batches = [next(source), next(source)]
    return dump_step(experiment, iteration, batches, state, may_hold_cause=True), batches


def test_the_step_comes_back_as_it_was(experiment):
    folder, batches = dumped(experiment)
    step = load_step(folder)
    assert (step.iteration, step.rank, step.world_size) == (7, 0, 1)
    assert step.experiment.config == experiment.config
    for ours, theirs in zip(step.batches, batches, strict=True):
        assert torch.equal(ours.images[0], theirs.images[0])
        assert torch.equal(ours.targets[0].boxes, theirs.targets[0].boxes)
        assert ours.targets[0].original_size == theirs.targets[0].original_size
        boxes, size = ours.targets[0].boxes, 14
        resized = [one.targets[0].masks.crop_and_resize(boxes, size) for one in (ours, theirs)]
        assert torch.equal(*resized)


def test_a_finite_step_has_no_finding(experiment):
    assert replay(load_step(dumped(experiment)[0])) is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda model: model.predictor.bias[1].fill_(float("nan")), "predictor.bias of the model, before the step"),
        (lambda model: model.blocks[0][0].weight.fill_(3e38), "output of blocks.0.0 (Conv2d)"),
        (lambda model: model.predictor.weight.fill_(1e30), "output of the model (Tiny)"),
    ],
)
def test_the_first_tensor_that_is_not_finite_is_named(experiment, change, where):
    finding = replay(load_step(dumped(experiment, change)[0]))
    assert finding is not None
    assert finding.where == where
    assert "NaN" in finding.description


def test_a_gradient_that_is_not_finite_behind_finite_losses_is_named(experiment, monkeypatch):
    """sqrt(0) is finite, its derivative is not."""
    step = load_step(dumped(experiment)[0])
    model = step.experiment.build_model()
    monkeypatch.setattr(type(step.experiment), "build_model", lambda self: model)
    model.predictor.register_forward_hook(lambda module, inputs, output: output + (output * 0).abs().sqrt())
    finding = replay(step)
    assert finding is not None
    assert finding.where.startswith("gradient of ")


def test_a_folder_without_a_dumped_step_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"no batch\.rank"):
        load_step(tmp_path)
    (tmp_path / "batch.rank0.pth").write_bytes(os.urandom(50))
    with pytest.raises(WeightsError, match="cannot be read as a dumped step"):
        load_step(tmp_path)
