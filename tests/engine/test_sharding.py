"""FSDP2 with what a large run uses: AdamW, an average of the weights, fp16 with its loss scaler, resuming."""

import signal

import pytest
import torch
from processes import differences, final_state, losses, running, train
from tiny_experiment import make_data, make_experiment
from torch import nn

from cvpods_ext.config import override
from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.engine.distributed.launch import choose_processes, launch
from cvpods_ext.engine.distributed.parallel import ParallelModel, full_tensor
from cvpods_ext.engine.optim import build_optimizer
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.engine.step import Step
from cvpods_ext.runtime import dist
from cvpods_ext.structures import Batch, Targets

SHARD = "schedule.sharding=shard"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    root = tmp_path_factory.mktemp("sharding")
    return make_experiment(root / "experiment", make_data(root), optimizer="adamw")


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 2e-3)])
def test_shards_train_as_replicas_do_and_resume_bit_for_bit(tmp_path, experiment, precision, tolerance):
    settings = ("schedule.lr=0.002", f"schedule.precision={precision}")
    replicas, shards, killed = (tmp_path / name for name in ("replicas", "shards", "killed"))
    assert train(experiment, replicas, *settings, ranks=2) == [0, 0]
    assert train(experiment, shards, *settings, SHARD, ranks=2) == [0, 0]
    torch.testing.assert_close(torch.tensor(losses(shards)), torch.tensor(losses(replicas)), rtol=tolerance, atol=1e-3)
    ours, theirs = final_state(shards), final_state(replicas)
    assert ours.keys() == theirs.keys()
    assert any(name.endswith("/exp_avg_sq") for name in ours)
    for name in (name for name in ours if name.startswith(("/ema_state/", "/model/"))):
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-2, atol=5e-3, msg=lambda m, name=name: name + m)
    if precision == "fp16":
        scalers = [torch.load(max(output.glob("model_iter_*.pth")))["scaler"] for output in (shards, replicas)]
        assert scalers[0] == scalers[1]

    with running(experiment, killed, *settings, SHARD, ranks=2, environment={"TINY_SECONDS": "0.05"}) as run:
        run.wait_until(6)
        run.signal(signal.SIGKILL)
        run.wait()
    assert train(experiment, killed, *settings, SHARD, ranks=2, resume=True) == [0, 0]
    assert differences(killed, shards) == []


class _FirstRow(nn.Linear):  # only the rows of rank 0 have a gradient
    def forward(self, batch):
        return {"loss": super().forward(batch.images[0])[0, 0].float()}


def _two_steps(device, folder):
    torch.manual_seed(0)
    model = _FirstRow(3, 4)
    settings = {"batch_size": 2, "images_per_device": 1, "optimizer": "adamw", "weight_decay": 0.1, "precision": "fp16"}
    config = override(DetectionConfig(), schedule=settings)
    parallel = ParallelModel(model, shard=True)
    scaler = torch.amp.GradScaler("cpu")
    state = TrainingState(model, build_optimizer(model, config.schedule), scaler)
    step = Step(parallel, state, config, device)
    target = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 1, (1, 3), (1, 3))
    rows = [(full_tensor(model.weight.detach()).clone(), scaler.get_scale())]
    for iteration in range(2):
        step.run(iteration, 0.1, iter([Batch([torch.ones(1, 3)], [target])]), stop=False)
        rows.append((full_tensor(model.weight.detach()).clone(), scaler.get_scale()))
    torch.save(rows, folder / f"rank{dist.rank()}")


def test_an_overflow_in_one_shard_is_skipped_by_all(tmp_path):
    """The first scale of 65536 is beyond float16; rank 1, whose shard has no gradient, must not decay its weights."""
    launch(_two_steps, (tmp_path,), choose_processes(2, "cpu"))
    first, second = (torch.load(tmp_path / f"rank{rank}") for rank in range(2))
    for (weight, scale), (other, other_scale) in zip(first, second, strict=True):
        assert torch.equal(weight, other)
        assert scale == other_scale
    assert torch.equal(first[0][0], first[1][0])
    assert (first[0][1], first[1][1]) == (65536, 32768)
    moved = first[2][0] != first[1][0]
    assert moved.all()  # by the gradient in rank 0's rows, by weight decay in the others
