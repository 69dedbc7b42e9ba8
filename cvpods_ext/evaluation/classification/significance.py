"""Every metric of classification on the same resampled images.

Shapes: K = classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.classification.metrics import class_totals, resampled, summarise
from cvpods_ext.evaluation.classification.scores import TopScores
from cvpods_ext.evaluation.intervals import Resampled


def resample(
    runs: Sequence[TopScores], labels: np.ndarray, groups: np.ndarray, resamples: int, seed: int = 0
) -> Resampled:
    """All seeds of an experiment on the draws that `seed` gives for this many images; classes are their top1.

    `labels` are of all images of the set by their ids, `groups` (K,) many, medium or few. DataError if the runs hold
    different images.
    """
    if any(not np.array_equal(run.image_ids, runs[0].image_ids) for run in runs):
        raise DataError("runs of different images cannot be compared; test all of them on the whole set")
    truth, num_classes = labels[runs[0].image_ids - 1], len(groups)
    ranks = [run.ranks(truth) for run in runs]
    totals = [class_totals(truth, each, num_classes) for each in ranks]
    with np.errstate(invalid="ignore"):
        classes = np.stack([100 * each[1] / each[0] for each in totals])
    drawn = [summarise(resampled(truth, each, num_classes, resamples, seed), groups) for each in ranks]
    return Resampled.mix([summarise(each, groups) for each in totals], drawn, classes)
