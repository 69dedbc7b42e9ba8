"""The test set of an experiment in semantic segmentation as reports need it, and its runs counted.

Shapes: K = classes, S = seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cvpods_ext.config.segmentation import SegmentationConfig
from cvpods_ext.data import segmentation, segmentation_statistics
from cvpods_ext.data.segmentation import LabelledImages
from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.intervals import Resampled
from cvpods_ext.evaluation.segmentation.evaluate import Counted, count_all
from cvpods_ext.evaluation.segmentation.label_maps import LabelMapFolder
from cvpods_ext.evaluation.segmentation.metrics import METRICS, iou_and_accuracy, resampled, summarise


@dataclass(frozen=True)
class ReportData:
    """Images with label maps, their digest; (K,) of "r", "c", "f", and (K,) labelled training pixels per million."""

    images: LabelledImages
    sha256: str
    groups: np.ndarray
    pixels_per_million: np.ndarray

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return [each.name for each in self.images.classes]

    def maps(self, folder: Path) -> LabelMapFolder:
        """Predicted label maps of these images in `folder`."""
        names = {image_id: self.images.stem(image_id - 1) for image_id in self.images.image_ids.tolist()}
        return LabelMapFolder(folder, names, self.images.first_value)

    def count(self, folder: Path, family: str) -> Counted:
        """What the predictions in `folder` come to. DataError for files that cannot be compared."""
        return count_all(self.images, self.maps(folder), [family])


def open_data(config: SegmentationConfig, folder: Path) -> ReportData:
    """As seen from an experiment folder. Raises DataError for files that are absent or broken."""
    images = segmentation.load(config.data.test, folder)
    limits = (config.test.rare_below, config.test.frequent_from)
    groups = segmentation_statistics.frequency_groups(config.data, folder, *limits)
    shares = segmentation_statistics.pixel_shares(config.data, folder)
    return ReportData(images, segmentation.sha256_of_labels(images), groups, np.rint(1e6 * shares).astype(np.int64))


def resample(runs: Sequence[Counted], family: str, groups: np.ndarray, resamples: int) -> Resampled:
    """All seeds of an experiment on the same draws; classes are their IoU. DataError if their images differ."""
    if any(run.image_ids != runs[0].image_ids for run in runs):
        raise DataError("runs of different images cannot be compared; test all of them on the whole set")
    areas, names = [run.areas[family] for run in runs], METRICS.family(family).names
    points = [summarise(each.totals, groups) for each in areas]
    drawn = [resampled(each, groups, resamples) for each in areas]
    return Resampled.mix(
        [{name: one[name] for name in names} for one in points],
        [{name: one[name] for name in names} for one in drawn],
        np.stack([iou_and_accuracy(each.totals)[0] for each in areas]),
    )
