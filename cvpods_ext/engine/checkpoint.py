"""Checkpoints: written atomically, listed with their checksum, and the newest sound one is found again.

A checkpoint holds tensors, numbers, strings, lists and dicts only, so that it loads with `weights_only=True`.
`checkpoints.json` lists files in the order of writing; training state is restored only through that list.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cvpods_ext.engine.earlier_run import INDEX, set_aside
from cvpods_ext.errors import DataError, StorageError, WeightsError
from cvpods_ext.modeling.weights.reader import read_training_state
from cvpods_ext.runtime.files import atomic_path, read_json, sha256_of, write_json
from cvpods_ext.runtime.records import is_finite
from cvpods_ext.runtime.run_lock import launch_id

logger = logging.getLogger(__name__)

FINAL = "model_final.pth"
_FILE = re.compile(r"model_iter_\d{7,15}\.pth")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMEDY = "The checkpoints before it are untouched: make room, or set output=..., then continue with --resume"

Entry = dict[str, Any]


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one run: the last `keep`, all multiples of `keep_every` (0: none), and the best rated one."""

    folder: Path
    keep: int = 3
    keep_every: int = 0

    def save(self, state: Mapping[str, Any]) -> Path:
        """Write the state after `state["iteration"]` steps, then forget what the policy does not keep.

        Raises StorageError when the file cannot be written; what was there before stays as it was.
        """
        iteration = state["iteration"]
        path = self.folder / _file_name(iteration)
        with _complete(path, state) as digest:  # then everything else makes way
            set_aside(self.folder)
            entries = [entry for entry in self._entries() if entry["file"] != path.name]
        entries.append({"file": path.name, "iteration": iteration, "sha256": digest})
        self._keep(entries)
        return path

    def rate(self, iteration: int, score: float) -> None:
        """Note how well the checkpoint of `iteration` tests; of those that were rated the best is kept."""
        entries = self._entries()
        for entry in entries:
            if entry["iteration"] == iteration:
                entry["score"] = score
        self._keep(entries)

    def best(self) -> Path | None:
        """The checkpoint with the highest rating, the earliest of equals; None before the first rating."""
        entry = _best(self._entries())
        return None if entry is None else self.folder / entry["file"]

    def of_iteration(self, iteration: int) -> Path | None:
        """The listed checkpoint after `iteration` steps."""
        files = [entry["file"] for entry in self._entries() if entry["iteration"] == iteration]
        return self.folder / files[0] if files else None

    def save_final(self, weights: Mapping[str, Any]) -> Path:
        """Write the weights (and their average) alone, for testing and for a second stage."""
        path = self.folder / FINAL
        with _complete(path, weights):
            set_aside(self.folder)
        return path

    def sweep(self) -> None:
        """Remove what a killed process left half-written."""
        for path in self.folder.glob(".model_*.tmp"):
            path.unlink(missing_ok=True)

    def latest(self) -> dict[str, Any] | None:
        """The newest sound checkpoint, on the CPU; a damaged one is reported and the one before it is used.

        None if nothing is listed. Raises WeightsError if none of those listed is sound, or the list is damaged.
        """
        entries = self._entries()
        for entry in reversed(entries):
            path = self.folder / entry["file"]
            if not path.is_file():
                logger.warning("checkpoint %s is listed but absent; trying the one before", path)
            elif sha256_of(path) != entry["sha256"]:
                logger.warning("checkpoint %s is damaged (its checksum differs); trying the one before", path)
            else:
                state = read_training_state(path)
                logger.info("resuming from %s at iteration %d", path, state["iteration"])
                return state
        if entries:
            raise WeightsError(
                f"none of the {len(entries)} checkpoints that {self.folder / INDEX} lists is there and sound. Put them "
                "back to continue; without --resume the run starts over, and what is left of this one is kept"
            )
        return None

    def weights(self) -> Path | None:
        """The file to test: the final weights, else the newest checkpoint."""
        final = self.folder / FINAL
        if final.is_file():
            return final
        newest = [self.folder / entry["file"] for entry in self._entries()]
        return next((path for path in reversed(newest) if path.is_file()), None)

    def is_of_this_launch(self) -> bool:
        """Whether the newest checkpoint was written by workers of the process that started this one."""
        index = self.folder / INDEX
        return bool(self._entries()) and read_json(index).get("launch") == launch_id()

    def require_space(self, checkpoint_bytes: int, count: int) -> None:
        """StorageError unless the disk has space for so many checkpoints: one is written before one is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        free, wanted = shutil.disk_usage(self.folder).free, count * checkpoint_bytes
        if free < wanted:
            raise StorageError(
                f"the disk of {self.folder} has {free / 2**30:.2f} GiB free, and {count} more checkpoints of "
                f"{checkpoint_bytes / 2**30:.2f} GiB must fit on it. Make room, or set output=... to another disk"
            )

    def _keep(self, entries: list[Entry]) -> None:
        """List what the policy keeps of `entries`, then remove the other files."""
        last, best = entries[-self.keep :], _best(entries)
        kept = [entry for entry in entries if entry in last or entry is best or self._is_milestone(entry)]
        write_json(self.folder / INDEX, {"checkpoints": kept, "launch": launch_id()}, _REMEDY)
        for entry in entries:
            if entry not in kept:
                _remove(self.folder / entry["file"])

    def _is_milestone(self, entry: Entry) -> bool:
        return self.keep_every > 0 and entry["iteration"] % self.keep_every == 0

    def _entries(self) -> list[Entry]:
        index = self.folder / INDEX
        if not index.is_file():
            return []
        try:
            content = read_json(index)
            if not isinstance(content, dict) or not isinstance(content.get("checkpoints"), list):
                raise DataError(f"{index} holds no list 'checkpoints'")
            for entry in content["checkpoints"]:
                _check_entry(entry, index)
        except DataError as error:
            raise WeightsError(
                f"{error}. Nothing was changed. Put the list back to continue with --resume; without it the run starts "
                "over and this one is kept, and any checkpoint of it can be the start with --weights FILE"
            ) from None
        return content["checkpoints"]


def _check_entry(entry: Any, index: Path) -> None:
    """DataError unless `entry` is one that `save` and `rate` write: files elsewhere must not be read or removed."""
    if not isinstance(entry, dict):
        raise DataError(f"{index} lists {entry!r:.80}, which is no checkpoint")
    file, iteration, score = entry.get("file"), entry.get("iteration"), entry.get("score", 0.0)
    if not isinstance(file, str) or not _FILE.fullmatch(file):
        raise DataError(f"{index} lists the file {file!r:.80}, which is no checkpoint in its folder")
    if type(iteration) is not int or file != _file_name(iteration):
        raise DataError(f"{index} lists {file} as iteration {iteration!r:.80}")
    if not isinstance(entry.get("sha256"), str) or not _SHA256.fullmatch(entry["sha256"]):
        raise DataError(f"{index} lists {file} without a checksum")
    if not is_finite(score):
        raise DataError(f"{index} lists {file} with the score {score!r:.80}")


def _file_name(iteration: int) -> str:
    return f"model_iter_{iteration:07d}.pth"


class BackgroundSaver:
    """Writes checkpoints while training goes on: one at a time, in the order given, all written when it is left.

    The states must be copies. An error of a write is raised by the next call.
    """

    def __init__(self, checkpoints: CheckpointFolder) -> None:
        self._checkpoints = checkpoints
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def __enter__(self) -> BackgroundSaver:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            self.wait()
        except (StorageError, WeightsError) as failed:
            if kind is None:
                raise
            logger.error("%s", failed)  # the error on its way out matters more
        finally:
            self._thread.shutdown()

    def save(self, state: Mapping[str, Any]) -> None:
        """Start writing `state`, once the one before is written; memory holds at most one copy."""
        self.wait()
        self._writing = self._thread.submit(self._checkpoints.save, state)

    def wait(self) -> None:
        """Return when everything is on disk; raises StorageError if it could not be written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # a folder, or a disk that became read-only: training goes on
        logger.warning("checkpoint %s is no longer needed and cannot be removed (%s)", path, error.strerror)


def _best(entries: list[Entry]) -> Entry | None:
    return max((entry for entry in entries if "score" in entry), key=lambda entry: entry["score"], default=None)


@contextmanager
def _complete(path: Path, state: Mapping[str, Any]) -> Iterator[str]:
    """Write everything under another name, yield its sha256, then give it its name."""
    with atomic_path(path, _REMEDY) as temporary:
        with open(temporary, "wb") as file:  # by its name, the temporary one would become part of the content
            torch.save(state, file)
        yield sha256_of(temporary)
