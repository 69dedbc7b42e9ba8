"""Pictures for pods_train (TensorBoard) and pods_test (files): the data and the drawing meet here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import Image

from cvpods_ext.config.experiment import Experiment
from cvpods_ext.data.annotations.annotations import Annotations, load
from cvpods_ext.data.catalog import categories, resolve
from cvpods_ext.data.dataset import read_image, read_targets
from cvpods_ext.engine.infer import detections_folder
from cvpods_ext.evaluation.detection.detections import DetectionTable, read_shard, shard_files
from cvpods_ext.report.drawing import contact_sheet, draw_detections, draw_targets
from cvpods_ext.structures import Detections, Targets
from cvpods_ext.structures.boxes import xywh_to_xyxy

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Artist:
    """Draws what the training loop hands over; knows the class names and the channel order."""

    class_names: list[str]
    channels: Literal["RGB", "BGR"]

    @classmethod
    def of(cls, experiment: Experiment) -> Artist:
        """For the images and classes of an experiment."""
        data = experiment.config.data
        return cls([category.name for category in categories(data.train, experiment.folder)], data.channels)

    def __call__(self, image: Tensor, shown: Targets | Detections) -> np.ndarray:
        """(3, H, W) uint8 and what belongs to it -> (h, w, 3) uint8 picture."""
        draw = draw_targets if isinstance(shown, Targets) else draw_detections
        return np.asarray(draw(image, shown, self.class_names, channels=self.channels))  # type: ignore[operator]


def draw_pictures(experiment: Experiment) -> Path | None:
    """Draw ground truth and detections of a few test images side by side; returns the contact sheet, None if empty.

    Images are spread evenly over the first shard. Drawn are detections above 0.3, and where scores are low, as they
    often are on a long tail, at least as many as there are objects.
    """
    shards = shard_files(detections_folder(experiment))
    count = experiment.config.test.pictures
    if not shards or not count:
        return None
    table = read_shard(shards[0])
    annotations = load(resolve(experiment.config.data.test, experiment.folder))
    positions = {int(image_id): position for position, image_id in enumerate(annotations.image_ids)}
    chosen = table.completed[np.unique(np.linspace(0, len(table.completed) - 1, count).astype(int))]
    artist = Artist.of(experiment)
    pictures: list[Image.Image] = []
    titles: list[str] = []
    for image_id in chosen.tolist():
        position = positions[image_id]
        image = read_image(annotations, position, "RGB")
        found = _detections_of(table, annotations, position)
        targets = read_targets(annotations, position)
        least = min(len(found), max(1, len(targets)))
        threshold = min(0.3, float(found.scores[least - 1])) if least else 0.3
        pictures += [
            draw_targets(image, targets, artist.class_names),
            draw_detections(image, found, artist.class_names, score_threshold=threshold),
        ]
        titles += [f"image {image_id}: ground truth", f"detections, score >= {threshold:.2g}"]
    path = experiment.output / "pictures" / "detections.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(pictures, titles, columns=min(4, len(pictures))).save(path)
    return path


def _detections_of(table: DetectionTable, annotations: Annotations, position: int) -> Detections:
    """The rows of one image as a record, best first."""
    rows = np.flatnonzero(table.image_ids == annotations.image_ids[position])
    rows = rows[np.argsort(-table.scores[rows], kind="stable")]
    mine = table.take(rows)
    return Detections(
        boxes=xywh_to_xyxy(torch.from_numpy(mine.boxes)),
        scores=torch.from_numpy(mine.scores),
        labels=torch.from_numpy(np.searchsorted(annotations.category_ids, mine.category_ids)),
        image_id=int(annotations.image_ids[position]),
        size=annotations.size(position),
        masks=mine.rles() if mine.rle_counts is not None else None,
    )
