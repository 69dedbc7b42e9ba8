"""Detections scored by how sure their mask is, as in the published evaluations of EVA-02.

Shapes: M = detections, S = side of a mask (28).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cvpods_ext.modeling.detection.postprocess import MASKS_AT_ONCE, RawDetections, Selection


def maskness(probabilities: Tensor, threshold: float) -> Tensor:
    """(M, S, S) -> (M,): mean probability of the pixels above the threshold, 0 where there is none."""
    inside = probabilities > threshold
    return (probabilities * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


def rescore(found: RawDetections, masks_of: Callable[[RawDetections], Tensor], selection: Selection) -> RawDetections:
    """Multiply scores by maskness and return the best detections of one image, with masks, best first.

    `masks_of` computes probabilities (M, S, S). Maskness only lowers a score, so as soon as `selection.limit`
    detections reach the unlowered score of the next one, the rest need no masks (without a limit per class, which may
    let any of them through).
    """
    limit = None if selection.limit_per_class is not None else selection.limit
    step = limit or MASKS_AT_ONCE
    done, scores, masks = 0, found.scores[:0], []
    while done < len(found.labels) or not masks:
        part = found.rows(slice(done, done + step))
        masks.append(masks_of(part))
        scores = torch.cat((scores, part.scores * maskness(masks[-1], selection.maskness_threshold)))
        done += step
        rest = len(scores) < len(found.labels)
        if limit and rest and scores.topk(limit).values[-1] >= found.scores[len(scores)]:
            break
    lowered, order = scores.sort(descending=True, stable=True)
    return selection.best(RawDetections(found.boxes[order], lowered, found.labels[order], torch.cat(masks)[order]))
