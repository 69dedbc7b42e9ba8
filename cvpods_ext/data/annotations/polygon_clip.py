"""Cut polygons at the border of an image, all at once (Sutherland and Hodgman, 1974, one border after the other).

Shapes: V = vertices of all polygons. A concave polygon that falls into pieces stays one polygon whose pieces hang
together along the border, which covers the same pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cvpods_ext.data.annotations.ragged import Polygons, join

if TYPE_CHECKING:
    from cvpods_ext.structures import PolygonMasks

Masks = TypeVar("Masks", "PolygonMasks", Polygons)


def clip(masks: Masks, size: tuple[int, int]) -> Masks:
    """Intersect with the frame of `size` = (height, width); polygons without area in it vanish, instances stay."""
    height, width = size
    vertices = np.asarray(masks.vertices, np.float64)
    owner = np.repeat(np.arange(len(masks.polygon_starts) - 1), np.diff(masks.polygon_starts))
    for axis, limit, sign in ((0, 0.0, 1.0), (0, float(width), -1.0), (1, 0.0, 1.0), (1, float(height), -1.0)):
        vertices, owner = _cut(vertices, owner, axis, limit, sign)
    return _without_empty(vertices, owner, masks)


def _cut(
    vertices: np.ndarray, owner: np.ndarray, axis: int, limit: float, sign: float
) -> tuple[np.ndarray, np.ndarray]:
    """Keep what lies on the inner side of one border: sign * (coordinate - limit) >= 0."""
    if len(vertices) == 0:
        return vertices, owner
    before = _previous(owner)
    distance = sign * (vertices[:, axis] - limit)
    inside = distance >= 0
    crossing = inside != inside[before]
    # An edge that crosses gives its crossing point, then its end point if that is inside.
    share = distance[before] / np.where(crossing, distance[before] - distance, 1.0)
    points = vertices[before] + share[:, None] * (vertices - vertices[before])
    points[:, axis] = limit
    emitted = np.stack((crossing, inside), axis=1)
    candidates = np.stack((points, vertices), axis=1)
    return candidates[emitted], np.repeat(owner, emitted.sum(axis=1))


def _previous(owner: np.ndarray) -> np.ndarray:
    """(V,) position of the vertex before each one in its own polygon, which is a closed ring."""
    previous = np.arange(len(owner)) - 1
    first = np.flatnonzero(np.concatenate(([True], owner[1:] != owner[:-1])))
    last = np.concatenate((first[1:], [len(owner)])) - 1
    previous[first] = last
    return previous


def _without_empty(vertices: np.ndarray, owner: np.ndarray, masks: Masks) -> Masks:
    count = len(masks.polygon_starts) - 1
    before = vertices[_previous(owner)] if len(owner) else vertices
    # Shoelace formula; a polygon squeezed onto a border has no area.
    cross = before[:, 0] * vertices[:, 1] - vertices[:, 0] * before[:, 1]
    area = 0.5 * np.abs(np.bincount(owner, cross, minlength=count))
    kept = area > 0
    keep_vertex = kept[owner]
    lengths = np.bincount(owner, minlength=count)[kept]
    per_instance = np.concatenate(([0], np.cumsum(kept)))[masks.instance_starts]
    return type(masks)(vertices[keep_vertex], np.concatenate(([0], np.cumsum(lengths))), per_instance)


def tight_boxes(masks: PolygonMasks) -> np.ndarray:
    """(N, 4) float64 XYXY around each instance's polygons; all zero for an instance that has none."""
    boxes = np.zeros((len(masks), 4))
    starts = masks.polygon_starts[masks.instance_starts]
    full = np.flatnonzero(np.diff(starts))
    if len(full):
        boxes[full, :2] = np.minimum.reduceat(masks.vertices, starts[full])
        boxes[full, 2:] = np.maximum.reduceat(masks.vertices, starts[full])
    return boxes


def cut_far(masks: Polygons, far: np.ndarray, sizes: np.ndarray) -> Polygons:
    """Cut the instances `far` off where they lie more than one image side beyond their image.

    `far` are ascending positions, `sizes` (N, 2) height, width of the image of every instance. Inside the images
    nothing changes, and a rasteriser no longer draws outlines of millions of pixels.
    """
    parts, done = [], 0
    for at in far.tolist():
        height, width = sizes[at].tolist()
        shift, one = np.array([width, height], np.float64), masks.take(np.array([at]))
        frame = (3 * height, 3 * width)
        cut = clip(Polygons(one.vertices + shift, one.polygon_starts, one.instance_starts), frame)
        back = Polygons(cut.vertices - shift, cut.polygon_starts, cut.instance_starts)
        parts += [masks.take(np.arange(done, at)), back]
        done = at + 1
    parts.append(masks.take(np.arange(done, len(sizes))))
    return join(parts)
