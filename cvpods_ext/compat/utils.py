"""Small helpers that old folders import from cvpods."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, Any

import torch
from torch import Tensor


class PathManager:
    """Local files under the interface of a file catalog."""

    @staticmethod
    def open(path: str, mode: str = "r", **options: Any) -> IO[Any]:
        """As the built-in."""
        return open(path, mode, **options)

    @staticmethod
    def exists(path: str) -> bool:
        """Whether there is such a file or folder."""
        return os.path.exists(path)

    @staticmethod
    def isfile(path: str) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(path)

    @staticmethod
    def get_local_path(path: str) -> str:
        """The path itself."""
        return path


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """As torch.cat."""
    return torch.cat(list(tensors), dim)
