"""Instance masks of one image: ragged polygons while the image is transformed, bitmaps where RLE came in.

Shapes: N = instances, P = polygons of all instances (>= N), V = vertices of all polygons.
Both classes answer the same calls, so that transforms and the mask loss need not know which one they hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from torch import Tensor

Indices = Sequence[int] | np.ndarray | Tensor


def _as_positions(index: Indices) -> np.ndarray:
    positions = np.asarray(index)
    return np.flatnonzero(positions) if positions.dtype == bool else positions.astype(np.int64)


def _ragged(starts: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the items of `chosen` groups, where group i is starts[i]:starts[i + 1], and their new starts."""
    lengths = np.diff(starts)[chosen]
    new_starts = np.concatenate(([0], np.cumsum(lengths)))
    return np.arange(new_starts[-1]) + np.repeat(starts[chosen] - new_starts[:-1], lengths), new_starts


@dataclass
class PolygonMasks:
    """Polygons of N instances in three flat arrays, cheap to pickle and to transform at once.

    vertices (V, 2) float64 x, y in pixels; `polygon_starts` (P + 1,) into vertices; `instance_starts` (N + 1,) into
    polygons.
    """

    vertices: np.ndarray
    polygon_starts: np.ndarray
    instance_starts: np.ndarray

    @classmethod
    def from_lists(cls, instances: Sequence[Sequence[Sequence[float]]]) -> PolygonMasks:
        """From the json layout: for each instance a list of flat [x0, y0, x1, y1, ...] polygons."""
        flat = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for one in instances for polygon in one]
        return cls(
            vertices=np.concatenate(flat) if flat else np.zeros((0, 2)),
            polygon_starts=np.cumsum([0] + [len(polygon) for polygon in flat]),
            instance_starts=np.cumsum([0] + [len(one) for one in instances]),
        )

    def __len__(self) -> int:
        return len(self.instance_starts) - 1

    def __getitem__(self, index: Indices) -> PolygonMasks:
        polygons, instance_starts = _ragged(self.instance_starts, _as_positions(index))
        vertices, polygon_starts = _ragged(self.polygon_starts, polygons)
        return PolygonMasks(self.vertices[vertices], polygon_starts, instance_starts)

    def to_lists(self) -> list[list[np.ndarray]]:
        """Back to the json layout, one list of flat arrays per instance."""
        polygons = [part.reshape(-1) for part in np.split(self.vertices, self.polygon_starts[1:-1])]
        if len(self.polygon_starts) == 1:
            polygons = []
        starts = self.instance_starts
        return [polygons[starts[i] : starts[i + 1]] for i in range(len(self))]

    def scale(self, x: float, y: float) -> PolygonMasks:
        """Stretch by a factor per axis."""
        return PolygonMasks(self.vertices * np.array([x, y]), self.polygon_starts, self.instance_starts)

    def flip_horizontal(self, width: float) -> PolygonMasks:
        """Mirror in an image of `width`."""
        mirrored = np.stack((width - self.vertices[:, 0], self.vertices[:, 1]), axis=1)
        return PolygonMasks(mirrored, self.polygon_starts, self.instance_starts)

    def crop_and_resize(self, boxes: Tensor, size: int) -> Tensor:
        """What each box (N, 4) sees of its own instance: (N, size, size) bool on the CPU.

        Polygons are shifted to the box corner, stretched to `size` and rasterised by the COCO rasteriser, all in one
        call; the sides of a box count as at least 0.1 pixels.
        """
        count = len(self)
        if count == 0:
            return torch.zeros((0, size, size), dtype=torch.bool)
        corners = boxes.detach().cpu().numpy().astype(np.float64)
        sides = np.maximum(corners[:, 2:] - corners[:, :2], 0.1)
        instance_of_polygon = np.repeat(np.arange(count), np.diff(self.instance_starts))
        instance_of_vertex = np.repeat(instance_of_polygon, np.diff(self.polygon_starts))
        local = (self.vertices - corners[instance_of_vertex, :2]) * (size / sides[instance_of_vertex])
        masks = np.zeros((count, size, size), dtype=bool)
        if len(instance_of_polygon):
            rings = [ring.reshape(-1).tolist() for ring in np.split(local, self.polygon_starts[1:-1])]
            rles: Any = coco_mask.frPyObjects(rings, size, size)  # one per ring; its stub knows a single one only
            drawn = coco_mask.decode(rles).transpose(2, 0, 1).astype(bool)
            np.logical_or.at(masks, instance_of_polygon, drawn)
        return torch.from_numpy(masks)

    def to_bitmasks(self, size: tuple[int, int]) -> BitMasks:
        """Rasterise in a frame of `size` = (height, width)."""
        height, width = size
        bitmaps = np.zeros((len(self), height, width), dtype=bool)
        for i, polygons in enumerate(self.to_lists()):
            if polygons:
                rles = coco_mask.frPyObjects([p.tolist() for p in polygons], height, width)
                bitmaps[i] = coco_mask.decode(coco_mask.merge(rles)).astype(bool)
        return BitMasks(torch.from_numpy(bitmaps))


@dataclass
class BitMasks:
    """Bitmaps of N instances in the frame of their image: (N, H, W) bool."""

    bitmaps: Tensor

    def __len__(self) -> int:
        return len(self.bitmaps)

    def __getitem__(self, index: Indices) -> BitMasks:
        return BitMasks(self.bitmaps[torch.from_numpy(_as_positions(index))])

    def scale(self, x: float, y: float) -> BitMasks:
        """Stretch by a factor per axis (nearest pixel, since a bitmap has no in-between)."""
        height, width = self.bitmaps.shape[1:]
        new_size = (max(1, int(height * y + 0.5)), max(1, int(width * x + 0.5)))
        if len(self) == 0:
            return BitMasks(self.bitmaps.new_zeros((0, *new_size)))
        resized = torch.nn.functional.interpolate(self.bitmaps[:, None].float(), size=new_size, mode="nearest-exact")
        return BitMasks(resized[:, 0] > 0.5)

    def flip_horizontal(self, width: float) -> BitMasks:
        """Mirror; `width` must be the bitmaps' own."""
        assert width == self.bitmaps.shape[2], f"flip in a frame of {width} for bitmaps {tuple(self.bitmaps.shape)}"
        return BitMasks(self.bitmaps.flip(2))

    def crop_and_resize(self, boxes: Tensor, size: int) -> Tensor:
        """What each box (N, 4) sees of its own instance: (N, size, size) bool, RoIAlign then a threshold of 0.5."""
        from torchvision.ops import roi_align

        if len(self) == 0:
            return torch.zeros((0, size, size), dtype=torch.bool)
        boxes = boxes.detach().to("cpu", torch.float32)
        rois = torch.cat((torch.arange(len(self), dtype=torch.float32)[:, None], boxes), dim=1)
        sampled = roi_align(self.bitmaps[:, None].float(), rois, (size, size), aligned=True, sampling_ratio=0)
        return sampled[:, 0] >= 0.5

    def to_bitmasks(self, size: tuple[int, int]) -> BitMasks:
        """Itself, if the frame agrees."""
        assert tuple(self.bitmaps.shape[1:]) == tuple(size), f"{tuple(self.bitmaps.shape)} is not a frame of {size}"
        return self


Masks = PolygonMasks | BitMasks
