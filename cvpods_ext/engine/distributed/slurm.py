"""Which part of a run this process is, according to Slurm. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """A job step as srun describes it to one of its tasks."""

    machines: int
    machine_rank: int
    tasks_per_machine: int
    rank: int
    local_rank: int
    first_host: str
    job: int

    @property
    def url(self) -> str:
        """Where the machines meet: a port of the first one that follows from the job, so that jobs do not collide."""
        return f"tcp://{self.first_host}:{20_000 + self.job % 20_000}"

    def worker_environment(self) -> dict[str, str]:
        """What torch expects of a launcher, for one task per process."""
        host, port = self.url.removeprefix("tcp://").split(":")
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.machines * self.tasks_per_machine),
            "LOCAL_RANK": str(self.local_rank),
            "LOCAL_WORLD_SIZE": str(self.tasks_per_machine),
            "MASTER_ADDR": host,
            "MASTER_PORT": port,
        }


def step_of(environment: Mapping[str, str]) -> Step | None:
    """The Slurm step of several tasks that this process belongs to; None outside one, as in a shell of salloc."""
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks <= 1 or "SLURM_PROCID" not in environment:
        return None
    machines = int(environment["SLURM_STEP_NUM_NODES"])
    return Step(
        machines=machines,
        machine_rank=int(environment["SLURM_NODEID"]),
        tasks_per_machine=tasks // machines,
        rank=int(environment["SLURM_PROCID"]),
        local_rank=int(environment["SLURM_LOCALID"]),
        first_host=first_host(environment["SLURM_STEP_NODELIST"]),
        job=int(environment["SLURM_JOB_ID"]),
    )


def first_host(nodes: str) -> str:
    """The first name of a Slurm host list: "gpu[07-09,12],login1" -> "gpu07"."""
    plain = re.match(r"[^,\[]*", nodes)
    assert plain is not None
    brackets = re.match(r"\[(\d+)[^\]]*\]([^,\[]*)", nodes[plain.end() :])
    return plain[0] + (brackets[1] + brackets[2] if brackets else "")
