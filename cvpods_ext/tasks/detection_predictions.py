"""Detections on disk: written while a test infers, evaluated, drawn, exchanged with other programs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.data.annotations.annotations import Annotations
from cvpods_ext.data.annotations.annotations import load as load_annotations
from cvpods_ext.data.catalog import resolve
from cvpods_ext.data.detection_dataset import read_image, read_targets
from cvpods_ext.data.num_shots import frequency_groups_if_known
from cvpods_ext.data.paths import DatasetPaths
from cvpods_ext.evaluation.detection import coco_json
from cvpods_ext.evaluation.detection.background_eval import evaluating_beside
from cvpods_ext.evaluation.detection.detections import DetectionTable, are_boxes_only, read_shard
from cvpods_ext.evaluation.detection.evaluate import evaluate
from cvpods_ext.evaluation.detection.protocol import needs_masks
from cvpods_ext.evaluation.detection.shard_writer import ShardWriter
from cvpods_ext.evaluation.detection.shards import (
    completed_image_ids,
    read_shard_metadata,
    set_damaged_aside,
    shard_files,
)
from cvpods_ext.evaluation.shards import SHARD_IMAGES
from cvpods_ext.structures import Detections
from cvpods_ext.structures.boxes import xywh_to_xyxy
from cvpods_ext.tasks.detection_drawing import draw_detections, draw_targets
from cvpods_ext.tasks.task import Evaluation, Export, Imported, Picture, Predictions

logger = logging.getLogger(__name__)

_DRAWN_SCORE = 0.3  # of a detection; where scores are low at least as many as there are objects are drawn


class DetectionPredictions(Predictions):
    """Parquet shards, see `evaluation.detection.detections`."""

    def __init__(self, config: DetectionConfig, experiment: Experiment, folder: Path) -> None:
        super().__init__(experiment, folder)
        self._config = config

    def completed(self) -> set[int]:
        """Ids of the images that some shard names."""
        return completed_image_ids(self.folder)

    def set_damaged_aside(self) -> list[Path]:
        """Shards that were cut short."""
        return set_damaged_aside(self.folder)

    def settings(self) -> list[Mapping[str, Any]]:
        """From the metadata of every shard."""
        return [read_shard_metadata(path).settings for path in shard_files(self.folder)]

    @contextmanager
    def writer(self, rank: int, settings: Mapping[str, Any]) -> Iterator[_Writer]:
        """Shards of one process."""
        category_ids = self._annotations().category_ids.tolist()
        with ShardWriter(self.folder, rank, dict(settings)) as shards:
            yield _Writer(shards, category_ids)

    def evaluate(self, families: Sequence[str]) -> Evaluation:
        """By the rules of `config.test`."""
        test, files = self._config.test, self._files.annotations
        groups = frequency_groups_if_known(self._config.data, self.experiment.folder)
        found = evaluate(files, self.folder, families, test.max_detections, test.evaluator, groups)
        return Evaluation(dict(found), found.settings)

    def evaluated_beside(self, num_images: int) -> AbstractContextManager[None]:
        """Matching of complete shards in a process of its own, if there is more to infer than what fits in one."""
        test = self._config.test
        if test.evaluator != "own" or num_images <= SHARD_IMAGES:
            return nullcontext()
        return evaluating_beside(self._files.annotations, self.folder, test.metrics, test.max_detections)

    def pictures(self, count: int) -> list[Picture]:
        """Images spread evenly over the first shard, ground truth before detections."""
        shards = shard_files(self.folder)
        if not shards or not count:
            return []
        table, annotations = read_shard(shards[0]), self._annotations()
        positions = {int(image_id): position for position, image_id in enumerate(annotations.image_ids)}
        chosen = table.completed[np.unique(np.linspace(0, len(table.completed) - 1, count).astype(int))]
        return [
            picture
            for image_id in chosen.tolist()
            for picture in _truth_and_detections(table, annotations, positions[image_id])
        ]

    def import_from(self, source: Path) -> Imported:
        """From a results json or a folder of shards; a source of boxes only cannot be evaluated on masks."""
        digest = coco_json.open_given(source, self.folder)
        wanted = self._config.test.metrics
        families = tuple(name for name in wanted if not (needs_masks(name) and are_boxes_only(self.folder)))
        if len(families) < len(wanted):
            logger.warning("%s holds boxes only: evaluated on %s", source, " and ".join(families) or "nothing")
        return Imported(digest, families)

    def exports(self) -> Mapping[str, Export]:
        """The results json of COCO and LVIS, and a COCO data set with scores."""
        results = Export(partial(coco_json.export_json, self.folder), ".json")
        return {"results": results, "dataset": Export(self._export_dataset, ".json")}

    def _export_dataset(self, file: Path) -> int:
        """File names are relative to the image folder."""
        annotations, root = self._annotations(), self._files.images
        images = [
            {
                "id": int(image_id),
                "file_name": str(annotations.image_path(position).relative_to(root)),
                "height": annotations.size(position)[0],
                "width": annotations.size(position)[1],
            }
            for position, image_id in enumerate(annotations.image_ids)
        ]
        categories = [{"id": category.id, "name": category.name} for category in annotations.categories]
        logger.info("%s: file names start at %s", file, root)
        return coco_json.export_dataset(self.folder, file, images, categories)

    @property
    def _files(self) -> DatasetPaths:
        return resolve(self._config.data.test, self.experiment.folder)

    def _annotations(self) -> Annotations:
        return load_annotations(self._files)


class _Writer:
    """A `ShardWriter` that knows which category each label is."""

    def __init__(self, shards: ShardWriter, category_ids: Sequence[int]) -> None:
        self._shards, self._category_ids = shards, category_ids

    def add(self, prediction: Detections) -> None:
        """Append the detections of one image."""
        self._shards.add(prediction, self._category_ids)


def _truth_and_detections(table: DetectionTable, annotations: Annotations, position: int) -> tuple[Picture, Picture]:
    image = read_image(annotations, position, "RGB")
    names = [category.name for category in annotations.categories]
    found, targets = _detections_of(table, annotations, position), read_targets(annotations, position)
    least = min(len(found), max(1, len(targets)))
    threshold = min(_DRAWN_SCORE, float(found.scores[least - 1])) if least else _DRAWN_SCORE
    truth = np.asarray(draw_targets(image, targets, names))
    detections = np.asarray(draw_detections(image, found, names, score_threshold=threshold))
    return (
        Picture(f"image {found.image_id}: ground truth", truth),
        Picture(f"detections, score >= {threshold:.2g}", detections),
    )


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
