"""A memory learns once a step, the same however the batch was spread."""

import subprocess
import sys
from pathlib import Path

import loss_cases
import pytest
import torch
from loss_cases import example

from cvpods_ext.modeling.losses.eqlv2 import EqualizationLossV2
from cvpods_ext.modeling.losses.seesaw import SeesawLoss
from cvpods_ext.modeling.losses.stateful import synchronize

STEPS = 3

WORKER = """
import sys
import torch
import torch.distributed as dist
sys.path[:0] = {folders!r}
from test_stateful import STEPS, losses, train
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://{store}", rank=rank, world_size=2)
made = losses()
values = [train(made, [2 * step + rank]) for step in range(STEPS)]
torch.save([values, [loss.state_dict() for loss in made]], "{out}" + str(rank))
dist.destroy_process_group()
"""


def losses():
    return [EqualizationLossV2(6), SeesawLoss(6)]


def train(made, seeds):
    """One step whose parts are the examples of `seeds`; the values of all parts."""
    values = [[loss(*example(loss, seed=seed)).item() for loss in made] for seed in seeds]
    synchronize(made)
    return values


def test_two_processes_have_the_statistics_of_one_that_accumulates(tmp_path):
    folders = [str(Path(__file__).parent), str(Path(loss_cases.__file__).parent)]
    code = WORKER.format(folders=folders, store=tmp_path / "store", out=tmp_path / "rank")
    workers = [subprocess.Popen([sys.executable, "-c", code, str(rank)]) for rank in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    values, memories = zip(*(torch.load(tmp_path / f"rank{rank}") for rank in range(2)), strict=True)
    for mine, theirs in zip(*memories, strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    one = losses()
    for step in range(STEPS):
        both = train(one, [2 * step, 2 * step + 1])
        assert both == pytest.approx(torch.tensor([values[0][step][0], values[1][step][0]]).numpy(), rel=1e-6)
    for loss, memory in zip(one, memories[0], strict=True):
        assert memory.keys() == set(loss.statistics)
        for name, value in memory.items():
            torch.testing.assert_close(value, loss.get_buffer(name), rtol=1e-6, atol=0)
            assert value.sum() > 0


def test_a_step_without_any_forward_pass_teaches_nothing():
    made = losses()
    synchronize(made)
    assert all(not loss.get_buffer(name).any() for loss in made for name in loss.statistics)


def test_a_step_that_is_not_finite_teaches_nothing():
    made = losses()
    train(made, [0])
    before = [loss.state_dict()[name].clone() for loss in made for name in loss.statistics]
    for loss in made:
        logits, labels, context = example(loss, seed=1)
        loss(logits * float("nan"), labels, context)
    synchronize(made)
    after = [loss.get_buffer(name) for loss in made for name in loss.statistics]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
