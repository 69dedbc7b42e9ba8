"""One command becomes as many processes as asked for, on one machine or several, on GPUs or on the CPU.

Workers are started by torch's elastic agent. Under `torchrun` or any launcher that sets WORLD_SIZE the command itself
is a worker already and runs as it is.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

import torch

from cvpods_ext.errors import ConfigError, UserError
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.environment import check_torch_pair


@dataclass(frozen=True)
class Processes:
    """How many processes, where. `dist_url` is tcp://host:port of machine 0, needed for several machines only."""

    device: str  # "cuda" or "cpu"
    per_machine: int = 1
    machines: int = 1
    machine_rank: int = 0
    dist_url: str = ""


def choose_processes(
    num_gpus: int | None, device: str | None, machines: int = 1, machine_rank: int = 0, dist_url: str = ""
) -> Processes:
    """What the flags of pods_train and pods_test ask for.

    No --num-gpus: one process, on the GPU if there is one. `--num-gpus 0` or `--device cpu`: the CPU; then
    `--num-gpus N` counts CPU processes. Raises ConfigError if more GPUs are asked for than there are.
    """
    check_torch_pair()
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        device = "cpu" if num_gpus == 0 or (num_gpus is None and available == 0) else "cuda"
    per_machine = max(1, num_gpus if num_gpus is not None else 1)
    if device == "cuda" and per_machine > available:
        raise ConfigError(
            f"--num-gpus {per_machine}, but this machine shows {available} CUDA devices. "
            "Use --num-gpus 0 to run on the CPU, or check CUDA_VISIBLE_DEVICES and the driver (nvidia-smi)"
        )
    if machines > 1 and not dist_url:
        raise ConfigError("--num-machines needs --dist-url tcp://HOST:PORT of machine 0, the same on every machine")
    return Processes(device, per_machine, machines, machine_rank, dist_url)


def launch(function: Callable[..., None], arguments: tuple[Any, ...], processes: Processes) -> None:
    """Call `function(device, *arguments)` in every process of the run; `function` must be importable.

    A worker that fails with a UserError has printed it; this process then exits with the same status 2.
    """
    if processes.per_machine * processes.machines == 1 or "WORLD_SIZE" in os.environ:
        _work(function, arguments, processes.device)
        return
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Without this every process would start a thread per core.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes.per_machine)))
    several = processes.machines > 1
    address = urlparse(processes.dist_url)
    config = LaunchConfig(
        min_nodes=processes.machines,
        max_nodes=processes.machines,
        nproc_per_node=processes.per_machine,
        run_id="cvpods_ext",
        # The static rendezvous keeps the given machine ranks; c10d with port 0 finds a free port by itself.
        rdzv_backend="static" if several else "c10d",
        rdzv_endpoint=f"{address.hostname}:{address.port}" if several else "localhost:0",
        rdzv_configs={"rank": processes.machine_rank} if several else {},
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, _worker)(function, arguments, processes.device)
    except ChildFailedError as error:
        status = {failure.exitcode for failure in error.failures.values()}
        if 2 in status:
            sys.exit(2)
        raise


def _worker(function: Callable[..., None], arguments: tuple[Any, ...], device: str) -> None:
    try:
        _work(function, arguments, device)
    except UserError as error:
        print(f"rank {os.environ.get('RANK', '?')}: {error}", file=sys.stderr, flush=True)
        sys.exit(2)


def _work(function: Callable[..., None], arguments: tuple[Any, ...], device: str) -> None:
    with dist.process_group(device) as own:
        function(own, *arguments)
