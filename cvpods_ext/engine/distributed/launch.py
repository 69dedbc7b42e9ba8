"""One command becomes as many processes as asked for, on one machine or several, on GPUs or on the CPU.

Workers are started by torch's elastic agent. Under `torchrun`, or `srun` with a task for each process, the command
itself is a worker already and runs as it is.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

import torch

from cvpods_ext.engine.distributed.slurm import step_of
from cvpods_ext.errors import ConfigError
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.environment import check_torch_pair
from cvpods_ext.runtime.files import for_the_user
from cvpods_ext.runtime.text import show_error

logger = logging.getLogger(__name__)

STOPPED = 130  # exit status of a worker that was asked to stop and wrote its checkpoint
_NOT_RESTARTED = (2, STOPPED)  # an error of the user's would only happen again
_SECONDS_TO_STOP = "120"  # between SIGTERM to the workers and SIGKILL: a step and a checkpoint


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
    """What the flags of pods_train and pods_test ask for, or the Slurm step that they run in.

    No --num-gpus: one process, on the GPU if there is one (under Slurm: all GPUs of the machine). `--num-gpus 0` or
    `--device cpu`: the CPU; then `--num-gpus N` counts CPU processes. Raises ConfigError if more GPUs are asked for
    than there are.
    """
    check_torch_pair()
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    slurm = step_of(os.environ) if machines == 1 and "WORLD_SIZE" not in os.environ else None
    if slurm is not None and slurm.tasks_per_machine > 1:
        os.environ.update(slurm.worker_environment())  # srun started the workers
    elif slurm is not None:
        machines, machine_rank, dist_url = slurm.machines, slurm.machine_rank, slurm.url
        num_gpus = num_gpus if num_gpus is not None else available
    if device is None:
        device = "cpu" if num_gpus == 0 or (num_gpus is None and available == 0) else "cuda"
    per_machine = max(1, num_gpus if num_gpus is not None else 1)
    if device == "cuda" and per_machine > available:
        raise ConfigError(
            f"--num-gpus {per_machine}, but this machine shows {available} CUDA devices. "
            "Use --num-gpus 0 to run on the CPU, or check CUDA_VISIBLE_DEVICES and the driver (nvidia-smi)"
        )
    if machines > 1 and urlparse(dist_url).port is None:
        raise ConfigError(
            f"--num-machines needs --dist-url tcp://HOST:PORT of machine 0, the same on every machine; got {dist_url!r}"
        )
    return Processes(device, per_machine, machines, machine_rank, dist_url)


def world_size(processes: Processes) -> int:
    """How many processes the run will have, whoever starts them."""
    return int(os.environ.get("WORLD_SIZE", processes.per_machine * processes.machines))


def was_restarted() -> bool:
    """Whether torchrun started this worker again after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def launch(
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    processes: Processes,
    restarts: int = 0,
    again: tuple[Any, ...] | None = None,
) -> None:
    """Call `function(device, *arguments)` in every process of the run; `function` must be importable.

    When a worker dies, all are started anew, up to `restarts` times, with the arguments `again`. A worker that fails
    with a UserError has printed it, one that was asked to stop has printed that; this process then exits with their
    status (2 or 130) and restarts nothing.
    """
    if (processes.per_machine * processes.machines == 1 and not restarts) or "WORLD_SIZE" in os.environ:
        _work(function, arguments, processes.device)
        return
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # Without this every process would start a thread per core.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes.per_machine)))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", _SECONDS_TO_STOP)
    for restart in range(restarts + 1):
        try:
            _start_workers(function, arguments, processes)
            return
        except SignalException as stop:
            print(f"stopped by {stop.sigval.name}; the workers have ended", file=sys.stderr)
            sys.exit(STOPPED if stop.sigval == signal.SIGINT else 128 + stop.sigval)
        except ChildFailedError as error:
            status = {failure.exitcode for failure in error.failures.values()}
            for known in _NOT_RESTARTED:
                if known in status:
                    sys.exit(known)
            if restart == restarts:
                raise
            logger.warning("%s: starting all again (%d of %d)", _causes(error), restart + 1, restarts)
            arguments = arguments if again is None else again


def _start_workers(function: Callable[..., None], arguments: tuple[Any, ...], processes: Processes) -> None:
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

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
    elastic_launch(config, _worker)(function, arguments, processes.device)


def _causes(error: Any) -> str:
    """Like "rank 1 died of SIGKILL"; the first failure only, since the others follow from it."""
    rank, first = min(error.failures.items(), key=lambda item: item[1].timestamp)
    code = first.exitcode
    return f"rank {rank} " + (f"died of {signal.Signals(-code).name}" if code < 0 else f"failed with status {code}")


def _worker(function: Callable[..., None], arguments: tuple[Any, ...], device: str) -> None:
    # A spawned process would spawn its readers as well: seconds and half a gigabyte each, where a fork shares memory.
    multiprocessing.set_start_method(None, force=True)
    try:
        _work(function, arguments, device)
    except KeyboardInterrupt as stop:
        if _prints():
            show_error(f"{stop or 'interrupted'}")
        sys.exit(STOPPED)
    except Exception as error:
        told = for_the_user(error)
        if told is None:
            raise
        show_error(f"rank {os.environ.get('RANK', '?')}: {told}")
        sys.exit(2)


def _prints() -> bool:
    """Whether this worker prints for all, also after the process group is gone."""
    return os.environ.get("RANK", "0") == "0"


def _work(function: Callable[..., None], arguments: tuple[Any, ...], device: str) -> None:
    with dist.process_group(device) as own:
        function(own, *arguments)
