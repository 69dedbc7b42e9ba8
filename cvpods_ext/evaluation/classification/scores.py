"""Scores of images on disk: the highest of every image, in shards that are written while a test runs.

Shapes: I = images, M = scores kept of an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvpods_ext.errors import DataError
from cvpods_ext.evaluation.shards import ShardKind, first_line

if TYPE_CHECKING:
    from cvpods_ext.structures.classification import ClassScores

KEPT = 20  # scores of an image at most; top 5 and what an image is mistaken for need no more
SCHEMA = pa.schema([("image_id", pa.int64()), ("label", pa.int64()), ("score", pa.float32())])
SCORES = ShardKind("scores", SCHEMA)


def highest(scores: np.ndarray) -> np.ndarray:
    """Labels of the `KEPT` highest of (K,) scores, highest first; of equal ones the smaller label comes first."""
    return np.argsort(-scores, kind="stable")[:KEPT]


def to_rows(prediction: ClassScores) -> pa.RecordBatch:
    """The highest scores of one image as rows; DataError for a score that is not finite."""
    scores = prediction.scores.detach().cpu().numpy().astype(np.float32)
    if not np.isfinite(scores).all():
        raise DataError(
            f"image {prediction.image_id}: a score is not finite; the weights have diverged. Test an earlier "
            "checkpoint."
        )
    labels = highest(scores)
    columns = [np.full(len(labels), prediction.image_id, np.int64), labels.astype(np.int64), scores[labels]]
    return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=SCHEMA)


@dataclass(frozen=True)
class TopScores:
    """image_ids (I,) ascending, labels (I, M) int64 and scores (I, M) float32, highest first."""

    image_ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def ranks(self, truth: np.ndarray) -> np.ndarray:
        """(I,) position of the class `truth` (I,) among the scores; M where it is not among them."""
        found = self.labels == truth[:, None]
        return np.where(found.any(axis=1), found.argmax(axis=1), self.labels.shape[1])


def read(folder: Path, num_images: int, num_classes: int) -> TopScores:
    """All shards in `folder`; DataError for rows that are not scores of `num_images` images and `num_classes`."""
    SCORES.completed_image_ids(folder)  # refuses images that two shards hold
    kept = min(KEPT, num_classes)
    parts = [_read_shard(path, num_images, num_classes, kept) for path in SCORES.files(folder)]
    if not sum(len(part.image_ids) for part in parts):
        raise DataError(f"{folder} holds no scores; run pods_test")
    image_ids, labels, scores = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("image_ids", "labels", "scores")
    )
    order = np.argsort(image_ids, kind="stable")
    return TopScores(image_ids[order], labels[order], scores[order])


def _read_shard(path: Path, num_images: int, num_classes: int, kept: int) -> TopScores:
    metadata = SCORES.read_metadata(path)
    try:
        table = pq.read_table(path, columns=SCHEMA.names).cast(SCHEMA)
        image_ids, labels, scores = (table.column(name).to_numpy() for name in SCHEMA.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({first_line(error)}); delete it and run pods_test again") from error
    ids = np.asarray(metadata.image_ids, np.int64)
    _require_scores(path, ids, image_ids, labels, scores, num_images, num_classes, kept)
    return TopScores(ids, labels.reshape(-1, kept).astype(np.int64), scores.reshape(-1, kept))


def _require_scores(
    path: Path,
    ids: np.ndarray,
    image_ids: np.ndarray,
    labels: np.ndarray,
    scores: np.ndarray,
    num_images: int,
    num_classes: int,
    kept: int,
) -> None:
    problem = ""
    if len(image_ids) != kept * len(ids) or not np.array_equal(image_ids, np.repeat(ids, kept)):
        problem = f"it does not hold {kept} scores of each of its {len(ids)} images"
    elif len(ids) and not (ids.min() >= 1 and ids.max() <= num_images):
        problem = f"it has the image {ids.max()}, and the test set has {num_images:,}"
    elif len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        problem = f"it has the label {labels.max()}, and there are {num_classes} classes"
    elif not np.isfinite(scores).all():
        problem = "a score is not finite"
    if problem:
        raise DataError(f"{path}: {problem}; it belongs to another test. Delete it and run pods_test again")


def confusions(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P,) classes, (P,) what their images are taken for by mistake, and (P,) how often; the most frequent first.

    `truth` and `predicted` are (I,); of equally frequent pairs the one of smaller labels comes first.
    """
    wrong = truth != predicted
    pairs, times = np.unique(np.stack((truth[wrong], predicted[wrong])), axis=1, return_counts=True)
    order = np.argsort(-times, kind="stable")
    return pairs[0, order], pairs[1, order], times[order]


def mistaken_most(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(K,) the class that images of each class are most often taken for by mistake, and (K,) how often; 0 for none."""
    pairs = confusions(truth, predicted)
    classes, others, times = (column[::-1] for column in pairs)  # the last assignment, of the most frequent, stays
    other, count = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    other[classes], count[classes] = others, times
    return other, count
