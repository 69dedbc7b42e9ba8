"""Pictures after a test: ground truth and predictions of a few images, side by side in one file."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.runtime.files import writing
from cvpods_ext.tasks.drawing import contact_sheet
from cvpods_ext.tasks.task import Predictions

_COLUMNS = 4


def draw_pictures(experiment: Experiment, predictions: Predictions) -> Path | None:
    """Draw `test.pictures` images; returns the file, None if the task has no pictures or nothing was predicted."""
    pictures = predictions.pictures(experiment.config.test.pictures)
    if not pictures:
        return None
    path = experiment.output / "pictures" / "predictions.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.fromarray(picture.pixels) for picture in pictures]
    with writing(path):
        contact_sheet(images, [p.title for p in pictures], columns=min(_COLUMNS, len(images))).save(path)
    return path
