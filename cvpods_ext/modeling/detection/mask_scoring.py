"""Detections scored by how sure their mask is, as in the published evaluations of EVA-02.

Shapes: M = detections, S = side of a mask (28).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cvpods_ext.modeling.detection.postprocess import RawDetections


def maskness(probabilities: Tensor, threshold: float) -> Tensor:
    """(M, S, S) -> (M,): mean probability of the pixels above the threshold, 0 where there is none."""
    inside = probabilities > threshold
    return (probabilities * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


def rescore(
    found: RawDetections, masks_of: Callable[[RawDetections], Tensor], threshold: float, limit: int
) -> RawDetections:
    """Multiply scores by maskness and return the best `limit` detections of one image, with masks, best first.

    `masks_of` computes probabilities (M, S, S). Maskness only lowers a score, so as soon as `limit` detections reach
    the unlowered score of the next one, the rest need no masks.
    """
    done, scores, masks = 0, found.scores[:0], []
    while done < len(found.labels) or not masks:
        part = found.slice(done, done + limit)
        masks.append(masks_of(part))
        scores = torch.cat((scores, part.scores * maskness(masks[-1], threshold)))
        done += limit
        if limit <= len(scores) < len(found.labels) and scores.topk(limit).values[-1] >= found.scores[len(scores)]:
            break
    best, order = scores.sort(descending=True, stable=True)
    order = order[:limit]
    return RawDetections(found.boxes[order], best[:limit], found.labels[order], torch.cat(masks)[order])
