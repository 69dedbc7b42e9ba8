"""Starting over in a folder that holds a run: that one stays continuable until its replacement has a checkpoint.

The new run needs the names of a few small files at once (config.json, metrics.jsonl, ...): those of the earlier run are
held in `.replaced/`. Its checkpoints, results and predictions stay where they are. When the first checkpoint of the new
run is on disk, all of the earlier run becomes `previous-N/`. If the new run ends before that, however it ends, what was
held is put back, at the latest by the next start; its own records are then kept in `failed-start/`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cvpods_ext.errors import DataError
from cvpods_ext.runtime.files import read_json, storage_error, write_text
from cvpods_ext.runtime.run_lock import LOCK, TEST_LOCK

logger = logging.getLogger(__name__)

INDEX = "checkpoints.json"
FAILED_START = "failed-start"
_HELD = ".replaced"
_OTHERS = "others.json"  # names of the earlier run's files that are not held
_RECORDS = ("config.json", "metrics.jsonl", "wandb_id.txt", "events.out.tfevents", "skipped.rank", "stacks.rank")
# The log goes on in one file; a smoke run is a run of its own.
_SHARED = ("previous-", "log", "smoke", FAILED_START, LOCK, TEST_LOCK, _HELD)


@contextmanager
def starting_over(folder: Path) -> Iterator[None]:
    """Around a run that starts at iteration 0 in `folder`, which may hold another one."""
    hold(folder)
    try:
        yield
    finally:
        put_back(folder)


def hold(folder: Path) -> None:
    """Free the names that the new run needs from its first step on; does nothing where no run has a checkpoint."""
    if not (folder / INDEX).exists() and not any(folder.glob("model_*.pth")):
        return
    names = [path.name for path in folder.iterdir() if not path.name.startswith((*_SHARED, ".model_"))]
    others = [name for name in names if not name.startswith(_RECORDS)]
    (folder / _HELD).mkdir()
    for name in names:
        if name not in others:
            _move(folder / name, folder / _HELD / name)
    write_text(folder / _HELD / _OTHERS, json.dumps(others) + "\n")  # last: from now on records are the new run's


def put_back(folder: Path) -> None:
    """Undo `hold`, and a `set_aside` that was interrupted; does nothing after a complete one."""
    held = folder / _HELD
    if not held.is_dir():
        return
    records = [path for path in folder.iterdir() if path.name.startswith(_RECORDS)]
    if not (held / _OTHERS).exists():
        records = []  # the earlier run's own: it was being held
    failed = folder / FAILED_START
    shutil.rmtree(failed, ignore_errors=True)
    for path in records:
        failed.mkdir(exist_ok=True)
        _move(path, failed / path.name)
    for path in list(held.iterdir()):
        if path.name != _OTHERS:
            _move(path, folder / path.name)
    shutil.rmtree(held)
    logger.warning("the new run ended before its first checkpoint; the earlier run in %s is as it was", folder)


def set_aside(folder: Path) -> Path | None:
    """Move the earlier run, which a new one replaces, to `previous-N`; returns where, None if there is none."""
    held = folder / _HELD
    if not held.is_dir():
        return None
    try:
        others = read_json(held / _OTHERS)
    except DataError:  # the new run cannot tell its files from the earlier ones
        others = []
    for name in others if isinstance(others, list) else []:
        if isinstance(name, str) and name == Path(name).name and (folder / name).exists():
            _move(folder / name, held / name)
    taken = [path.name.removeprefix("previous-") for path in folder.glob("previous-*")]
    target = folder / f"previous-{1 + max((int(number) for number in taken if number.isdecimal()), default=0)}"
    _move(held, target)
    (target / _OTHERS).unlink(missing_ok=True)
    logger.warning("the earlier run is in %s now (--resume would have continued it)", target)
    return target


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError as error:
        raise storage_error(target, error) from error
