"""Checkpoints: written atomically, listed with their checksum, and the newest sound one is found again.

A checkpoint holds tensors, numbers, strings, lists and dicts only, so that it loads with `weights_only=True`.
`checkpoints.json` lists files in the order of writing; training state is restored only through that list.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvpods_ext.errors import WeightsError
from cvpods_ext.runtime.files import atomic_path, sha256_of, write_json

logger = logging.getLogger(__name__)

INDEX = "checkpoints.json"
FINAL = "model_final.pth"


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one run."""

    folder: Path
    keep: int = 3

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, iteration: int, extra: dict[str, Any] | None = None
    ) -> Path:
        """Write the state after `iteration` steps, then forget what is older than the last `keep` files.

        Raises WeightsError when the file cannot be written; what was there before stays as it was.
        """
        path = self.folder / f"model_iter_{iteration:07d}.pth"
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "iteration": iteration,
            **(extra or {}),
        }
        digest = _write(path, state)
        entries = [entry for entry in self._entries() if entry["file"] != path.name]
        entries.append({"file": path.name, "iteration": iteration, "sha256": digest})
        write_json(self.folder / INDEX, {"checkpoints": entries[-self.keep :]})
        for entry in entries[: -self.keep]:
            (self.folder / entry["file"]).unlink(missing_ok=True)
        return path

    def save_final(self, model: nn.Module, iteration: int, extra: dict[str, Any] | None = None) -> Path:
        """Write the weights (and their average, in `extra`) alone, for testing and for a second stage."""
        path = self.folder / FINAL
        _write(path, {"model": model.state_dict(), "iteration": iteration, **(extra or {})})
        return path

    def latest(self) -> dict[str, Any] | None:
        """The newest sound checkpoint, on the CPU; a damaged one is reported and the one before it is used."""
        for entry in reversed(self._entries()):
            path = self.folder / entry["file"]
            if not path.is_file():
                logger.warning("checkpoint %s is listed but absent; trying the one before", path)
            elif sha256_of(path) != entry["sha256"]:
                logger.warning("checkpoint %s is damaged (its checksum differs); trying the one before", path)
            else:
                state = torch.load(path, map_location="cpu", weights_only=True)
                logger.info("resuming from %s at iteration %d", path, state["iteration"])
                return state
        return None

    def weights(self) -> Path | None:
        """The file to test: the final weights, else the newest checkpoint."""
        final = self.folder / FINAL
        if final.is_file():
            return final
        newest = [self.folder / entry["file"] for entry in self._entries()]
        return next((path for path in reversed(newest) if path.is_file()), None)

    def set_aside(self) -> Path | None:
        """Move an earlier run out of the way, so that starting over loses nothing; returns where it went."""
        if not (self.folder / INDEX).is_file() and not (self.folder / FINAL).is_file():
            return None
        taken = [int(path.name.split("-")[1]) for path in self.folder.glob("previous-*") if path.is_dir()]
        target = self.folder / f"previous-{max(taken, default=0) + 1}"
        target.mkdir()
        for path in list(self.folder.iterdir()):
            # The log goes on in one file; a smoke run is a run of its own.
            if not path.name.startswith(("previous-", "log", "smoke")):
                shutil.move(path, target / path.name)
        return target

    def _entries(self) -> list[dict[str, Any]]:
        index = self.folder / INDEX
        if not index.is_file():
            return []
        try:
            return json.loads(index.read_text(encoding="utf-8"))["checkpoints"]
        except (json.JSONDecodeError, KeyError) as error:
            raise WeightsError(f"{index} is damaged ({error}); remove it to start over from iteration 0") from None


def _write(path: Path, state: dict[str, Any]) -> str:
    """Save atomically; returns the sha256 of the file."""
    try:
        with atomic_path(path) as temporary:
            torch.save(state, temporary)
            return sha256_of(temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        free = shutil.disk_usage(path.parent).free / 2**30
        raise WeightsError(
            f"cannot write {path} ({str(error).splitlines()[0]}; {free:.2f} GiB free). The checkpoints before it are "
            "untouched: make room, or set output=..., then continue with --resume"
        ) from error
