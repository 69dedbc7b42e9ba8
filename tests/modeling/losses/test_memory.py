"""Memories of two processes are the sum of what both saw."""

import subprocess
import sys
from pathlib import Path

import torch
from loss_cases import example

from cvpods_ext.modeling.losses.eqlv2 import EqualizationLossV2
from cvpods_ext.modeling.losses.memory import summed_over_processes
from cvpods_ext.modeling.losses.seesaw import SeesawLoss

WORKER = """
import sys
import torch
import torch.distributed as dist
sys.path.insert(0, {here!r})
from loss_cases import example
from cvpods_ext.modeling.losses.eqlv2 import EqualizationLossV2
from cvpods_ext.modeling.losses.seesaw import SeesawLoss
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://{store}", rank=rank, world_size=2)
losses = [EqualizationLossV2(6), SeesawLoss(6)]
for step in range(2):
    for loss in losses:
        loss(*example(loss, seed=2 * step + rank))
torch.save([loss.state_dict() for loss in losses], "{out}" + str(rank))
dist.destroy_process_group()
"""


def test_two_processes_keep_one_memory(tmp_path):
    code = WORKER.format(here=str(Path(__file__).parent), store=tmp_path / "store", out=tmp_path / "rank")
    workers = [subprocess.Popen([sys.executable, "-c", code, str(rank)]) for rank in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    first, second = (torch.load(tmp_path / f"rank{rank}") for rank in range(2))
    for mine, theirs in zip(first, second, strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    seesaw = SeesawLoss(6)
    for seed in range(4):
        seesaw(*example(seesaw, seed=seed))
    assert torch.equal(first[1]["seen"], seesaw.seen)
    # EQLv2: at the start both processes weigh by 1, so the first step is the plain sum.
    eql = [EqualizationLossV2(6) for _ in range(2)]
    for seed, loss in enumerate(eql):
        loss(*example(loss, seed=seed))
    one = EqualizationLossV2(6)
    one.positive_gradients += eql[0].positive_gradients + eql[1].positive_gradients
    one.negative_gradients += eql[0].negative_gradients + eql[1].negative_gradients
    steps = []
    for seed in (2, 3):
        copy = EqualizationLossV2(6)
        copy.load_state_dict(one.state_dict())
        copy(*example(copy, seed=seed))
        steps.append(copy.negative_gradients - one.negative_gradients)
    torch.testing.assert_close(first[0]["negative_gradients"], one.negative_gradients + steps[0] + steps[1])


def test_a_single_process_sums_nothing():
    increment = torch.ones(2)
    assert summed_over_processes(increment) is increment
