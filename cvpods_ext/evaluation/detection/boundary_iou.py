"""Boundaries of masks, for boundary AP (Cheng et al., "Boundary IoU", CVPR 2021).

Mask IoU forgives coarse contours of large objects. Boundary IoU compares only the pixels near the contours; boundary AP
matches by the smaller of both, so that neither a wrong contour nor a wrong inside passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import minimum_filter

from cvpods_ext.evaluation.detection.masks import mask_boxes, rle_tools

WIDTH = 0.02  # of the image's diagonal: how far from its contour a pixel still belongs to the boundary


def boundary(rle: dict[str, Any], box: np.ndarray) -> dict[str, Any]:
    """The pixels of a mask within `WIDTH` of its contour; beyond the image counts as outside of the mask.

    `box` (4,) is the mask's tight XYWH; only that part is eroded, since all beyond it is outside.
    """
    height, width = rle["size"]
    reach = max(1, round(WIDTH * float(np.hypot(height, width))))
    x, y, w, h = box.astype(int).tolist()
    bitmap = rle_tools.decode(rle)
    inside = bitmap[y : y + h, x : x + w]
    eroded = minimum_filter(inside, size=2 * reach + 1, mode="constant", cval=0)
    edge = np.zeros_like(bitmap)
    edge[y : y + h, x : x + w] = inside & ~eroded.astype(bool)
    return rle_tools.encode(np.asfortranarray(edge))


def boundaries(rles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`boundary` of each mask."""
    return [boundary(rle, box) for rle, box in zip(rles, mask_boxes(rles), strict=True)]
