"""How the subcommands of pods_data take a data set: by name, or as a json file with its images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cvpods_ext.config.schema import DatasetFiles
    from cvpods_ext.data.annotations.annotations import Annotations

DATASET_HELP = "name of a data set, or a json file"


def dataset_of(text: str, images: str) -> str | DatasetFiles:
    """A name of the catalog, or a json of the user's with its image folder (default: the json's own folder)."""
    if not text.endswith((".json", ".json.gz")):
        return text
    from cvpods_ext.config.schema import DatasetFiles

    annotations = Path(os.path.realpath(text))
    return DatasetFiles(
        annotations=str(annotations), images=str(os.path.realpath(images) if images else annotations.parent)
    )


def load_annotations(dataset: str) -> Annotations:
    """The annotations of a data set, with the current folder as the place to look from."""
    from cvpods_ext.data import catalog
    from cvpods_ext.data.annotations import annotations

    return annotations.load(catalog.resolve(dataset_of(dataset, ""), Path.cwd()))
