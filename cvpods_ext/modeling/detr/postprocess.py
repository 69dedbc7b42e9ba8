"""From predictions to detections: the best pairs of query and class, without suppression.

Shapes: N = images, Q = queries, C = classes, M = detections.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cvpods_ext.modeling.detection.postprocess import RawDetections
from cvpods_ext.modeling.detr.boxes import to_corners


@dataclass(frozen=True)
class BestPairs:
    """At most `limit` detections per image, of scores strictly above the threshold; a query may give several."""

    limit: int = 300
    score_threshold: float = 0.0

    def __call__(self, scores: Tensor, boxes: Tensor, image_sizes: Tensor) -> list[RawDetections]:
        """Detections of every image in the pixels of the network's input, best first.

        scores (N, Q, C), boxes (N, Q, 4) centre and size in [0, 1] of the image, image_sizes (N, 4) = width, height,
        width, height.
        """
        num_classes = scores.shape[2]
        best = scores.flatten(1).topk(min(self.limit, scores[0].numel()), dim=1)
        corners = to_corners(boxes.float()) * image_sizes[:, None]
        found = []
        for values, pairs, candidates in zip(best.values.float(), best.indices, corners, strict=True):
            passing = values > self.score_threshold
            pairs = pairs[passing]
            found.append(RawDetections(candidates[pairs // num_classes], values[passing], pairs % num_classes))
        return found
