"""Running memories of a loss (counts, gradients) that every process of a run shares."""

from __future__ import annotations

import torch.distributed as torch_dist
from torch import Tensor

from cvpods_ext.runtime.dist import world_size


def summed_over_processes(increment: Tensor) -> Tensor:
    """The sum of every process's increment, so that all memories stay equal; the tensor itself in a single process."""
    if world_size() > 1:
        increment = increment.clone()
        torch_dist.all_reduce(increment)
    return increment
