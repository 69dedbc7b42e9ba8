"""The test set of an experiment as reports need it: annotations, images, and how often each category was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvpods_ext.config.detection import DetectionData
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.data import catalog, num_shots
from cvpods_ext.data.annotations import annotations
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.detection import ground_truth
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth


@dataclass(frozen=True)
class ReportData:
    """Annotations, where the image of an id lies, and (K,) training images by category where they are known."""

    gt: GroundTruth
    image_path: Callable[[int], Path]
    train_image_counts: np.ndarray | None


def open_data(experiment: Experiment, masks: bool) -> ReportData:
    """The test set of an experiment. Raises DataError for files that are absent or broken."""
    data, folder = experiment.config.data, experiment.folder
    loaded = annotations.load(catalog.resolve(data.test, folder))
    assert isinstance(data, DetectionData), "reports of detection are asked about experiments of detection"
    groups = num_shots.frequency_groups_if_known(data, folder)
    gt = ground_truth.load(loaded.paths.annotations, masks=masks, frequency=groups)
    position = {image_id: k for k, image_id in enumerate(loaded.image_ids.tolist())}
    return ReportData(
        gt,
        image_path=lambda image_id: loaded.image_path(position[image_id]),
        train_image_counts=_train_image_counts(experiment, gt.category_ids.tolist()),
    )


def _train_image_counts(experiment: Experiment, category_ids: list[int]) -> np.ndarray | None:
    """(K,) as the training set's facts say; None if they do not."""
    try:
        known = catalog.categories(experiment.config.data.train, experiment.folder)
    except DataError:  # the training json need not be on a machine that only tests
        return None
    counts = {one.id: one.image_count for one in known}
    found = [counts.get(identity, -1) for identity in category_ids]
    return np.array(found) if found and min(found) >= 0 else None
