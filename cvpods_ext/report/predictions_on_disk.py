"""Which measured experiments still have their predictions on disk, and where."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from cvpods_ext.config.experiment import output_folder
from cvpods_ext.report.runs import Entry, labels

logger = logging.getLogger(__name__)


class OnDisk(Protocol):
    """How a task keeps predictions."""

    @property
    def stem(self) -> str:
        """What they are called."""
        ...

    def settings(self, folder: Path) -> Sequence[Mapping[str, Any]]:
        """What each file of predictions in `folder` was made with; [] where there is none."""
        ...


def shards_of(entry: Entry, kind: OnDisk) -> list[Path]:
    """Folders of the runs' predictions, as far as they are still on disk and by the weights that were tested."""
    folders = []
    for path, run in zip(entry.paths, entry.runs, strict=True):
        outputs = (path.parent, output_folder(path.parent))
        places = [output / "inference" / entry.dataset for output in outputs]
        folders += [folder for folder in places if _are_of(folder, kind, run.provenance.get("weights_sha256"))][:1]
    return folders


def _are_of(folder: Path, kind: OnDisk, weights_sha256: str | None) -> bool:
    """Whether predictions lie there that these weights made, or of which nobody knows otherwise."""
    made_by = {settings.get("weights_sha256") for settings in kind.settings(folder)}
    return bool(made_by) and (weights_sha256 is None or made_by <= {weights_sha256, None})


def with_predictions(
    entries: Sequence[Entry], kind: OnDisk, data_sha256: str, data: str
) -> list[tuple[str, Entry, list[Path]]]:
    """Label, entry and folders of what can be evaluated again; a warning says what cannot and why.

    `data_sha256` is the digest of the test set that was opened, `data` says which it is.
    """
    usable = []
    for entry, label in zip(entries, labels(entries), strict=True):
        folders = shards_of(entry, kind)
        if not folders:
            logger.warning("%s has no %s on disk: only its results.json is shown", label, kind.stem)
        elif entry.conditions.get("data_sha256", data_sha256) != data_sha256:
            logger.warning("%s was measured on other annotations than %s: only its results.json is shown", label, data)
        else:
            if len(folders) < len(entry.runs):
                logger.warning(
                    "%s: only %d of %d runs have %s on disk", label, len(folders), len(entry.runs), kind.stem
                )
            usable.append((label, entry, folders))
    return usable
