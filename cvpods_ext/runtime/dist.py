"""Processes of one run: who am I, and the few collectives that the engine needs. No-ops in a single process."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as torch_dist
from torch import Tensor

# Rank 0 may evaluate or write for a long time while the others wait.
TIMEOUT = datetime.timedelta(hours=6)
_SECONDS_TO_LET_GO = 0.1


def rank() -> int:
    """Position of this process among all of the run."""
    return torch_dist.get_rank() if torch_dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes of the run."""
    return torch_dist.get_world_size() if torch_dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


@contextmanager
def process_group(device: str) -> Iterator[torch.device]:
    """Join the processes that the environment announces (RANK, WORLD_SIZE, ...), and yield this one's device.

    Without WORLD_SIZE, or with one process, nothing is initialised. `device` is "cpu" or "cuda".
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    own = torch.device("cuda", local_rank) if device == "cuda" else torch.device(device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield own
        return
    # gloo beside nccl: objects and waiting must not occupy the device
    torch_dist.init_process_group("cpu:gloo,cuda:nccl" if own.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield own
    finally:
        torch_dist.destroy_process_group()
        # DTensor's caches keep a sharded run's group, and with it gloo's threads, alive. One that still waits for the
        # interpreter, to release the tensors of the last collective, would abort the process when the interpreter
        # shuts down (pytorch issue 190489). Sleeping lets it in.
        time.sleep(_SECONDS_TO_LET_GO)


def barrier() -> None:
    """Wait for all processes, on the CPU."""
    if world_size() > 1:
        torch_dist.all_reduce(torch.zeros(1))


def mean_over_processes(values: Tensor) -> Tensor:
    """Average a tensor over all processes; every process gets the result."""
    if world_size() == 1:
        return values
    values = values.clone()
    torch_dist.all_reduce(values)
    return values / world_size()


def agree(value: int) -> bool:
    """Whether all processes have the same number (below 2^53)."""
    if world_size() == 1:
        return True
    numbers = torch.tensor([value, -value], dtype=torch.float64)
    torch_dist.all_reduce(numbers, torch_dist.ReduceOp.MAX)
    return bool(numbers[0] == -numbers[1])


def processes_on_this_machine() -> int:
    """How many processes of the run share this machine, as the launcher announced."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))


@contextmanager
def main_first() -> Iterator[bool]:
    """Let rank 0 run the body alone, then the others: caches are built once. Yields whether this is rank 0."""
    if not is_main():
        barrier()
    yield is_main()
    if is_main():
        barrier()
