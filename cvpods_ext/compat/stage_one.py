"""The checkpoint of a first stage, which config.py of a second one looks at when it is imported.

Published stage-2 folders read `../<stage 1>/log/model_final.pth` at import and write it again without its training
state as `plain_model_final.pth`. Weights that a run starts from never bring their training state along here, so
neither is needed: for the time of the import such files pass for present and empty, and nothing is written.
"""

from __future__ import annotations

import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

_CHECKPOINT = re.compile(r"(plain_)?model_(final|(iter_|epoch_)?\d+)\.pth")
_PLAIN = "plain_model_final.pth"


@dataclass
class Watch:
    """What config.py did to the checkpoint of a first stage: whether it looked into the weights to change them."""

    changed: bool = False


@contextmanager
def checkpoints_pass_for_present() -> Iterator[Watch]:
    """Checks for checkpoints succeed, reading one gives no tensors, and nothing at all is written by torch."""
    watch = Watch()
    with ExitStack() as stack:
        for name in ("exists", "isfile", "lexists"):
            stack.enter_context(patch.object(os.path, name, _yes(getattr(os.path, name))))
        for name in ("exists", "is_file"):
            stack.enter_context(patch.object(pathlib.Path, name, _yes(getattr(pathlib.Path, name))))
        if torch := sys.modules.get("torch"):  # a config.py that imports it was given it before, see `folder`
            stack.enter_context(patch.object(torch, "load", _empty(torch.load, watch)))
            stack.enter_context(patch.object(torch, "save", lambda *_, **__: None))
        yield watch


class _Weights(dict[str, Any]):
    """An empty state dict that notes whether somebody goes through it or changes it."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def _noted(self, *_: Any, **__: Any) -> Any:
        self._watch.changed = True
        return iter(())

    def pop(self, *_: Any) -> None:
        """Noted."""
        self._watch.changed = True

    def __setitem__(self, *_: Any) -> None:
        self._watch.changed = True

    def __delitem__(self, *_: Any) -> None:
        self._watch.changed = True

    __iter__ = keys = values = items = _noted


def _is_checkpoint(path: Any) -> bool:
    return isinstance(path, str | os.PathLike) and bool(_CHECKPOINT.fullmatch(Path(path).name))


def _yes(real: Callable[..., bool]) -> Callable[..., bool]:
    def check(path: Any, *args: Any, **options: Any) -> bool:
        return _is_checkpoint(path) or real(path, *args, **options)

    return check


def _empty(real: Callable[..., Any], watch: Watch) -> Callable[..., Any]:
    def load(f: Any, *args: Any, **options: Any) -> Any:
        if _is_checkpoint(f):
            return {"model": _Weights(watch), "optimizer": {}, "scheduler": {}, "iteration": 0}
        return real(f, *args, **options)

    return load


def initial_weights(weights: str, folder: Path) -> str:
    """`MODEL.WEIGHTS` of the old config in `folder` as our `model.init`.

    A path is followed where its file is there. Of the first stage of a two-stage folder that is the file of a run of
    cvpods in `log/`, without or with its training state, else the final weights of our own run of that folder.
    """
    if weights in ("", "none") or "://" in weights:
        return weights or "none"
    path = Path(os.path.expanduser(weights))
    there = folder / path
    candidates = [there, there.with_name("model_final.pth")] if path.name == _PLAIN else [there]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is not None:
        return weights if found == there else str(path.with_name(found.name))
    if path.parent.name in ("log", "outputs") and path.name in (_PLAIN, "model_final.pth"):
        first = Path(os.path.normpath(there.parent.parent))
        return f"experiment:{os.path.relpath(first, folder.parent)}"
    return weights
