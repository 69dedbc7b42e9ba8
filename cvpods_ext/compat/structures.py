"""Boxes and instances as old folders see them: thin records over tensors of ours.

Shapes: N = boxes or instances of one image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from cvpods_ext.structures import boxes as box_ops


class Boxes:
    """(N, 4) float32 XYXY in pixels, as `tensor`."""

    def __init__(self, tensor: Any) -> None:
        if not isinstance(tensor, Tensor):
            tensor = torch.as_tensor([torch.as_tensor(row).tolist() for row in tensor])
        self.tensor = tensor.to(torch.float32).reshape(-1, 4) if tensor.numel() == 0 else tensor.to(torch.float32)
        assert self.tensor.shape[1:] == (4,), f"boxes are (N, 4), got {tuple(tensor.shape)}"

    def clone(self) -> Boxes:
        """A copy."""
        return Boxes(self.tensor.clone())

    def to(self, device: Any) -> Boxes:
        """The same on `device`."""
        return Boxes(self.tensor.to(device))

    def area(self) -> Tensor:
        """(N,) square pixels."""
        return box_ops.area(self.tensor)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Limit to an image of (height, width), in place."""
        assert self.tensor.isfinite().all(), "boxes hold values that are not finite"
        self.tensor = box_ops.clip(self.tensor, box_size)

    def nonempty(self, threshold: float = 0) -> Tensor:
        """(N,) bool: both sides longer than `threshold`."""
        return box_ops.nonempty(self.tensor, threshold)

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Stretch, in place."""
        self.tensor = box_ops.scale(self.tensor, scale_x, scale_y)

    def get_centers(self) -> Tensor:
        """(N, 2)."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    @classmethod
    def cat(cls, boxes_list: Sequence[Boxes]) -> Boxes:
        """All of them, in order."""
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]) if boxes_list else torch.empty(0, 4))

    @property
    def device(self) -> torch.device:
        """Of the tensor."""
        return self.tensor.device

    def __getitem__(self, item: Any) -> Boxes:
        rows = self.tensor[item]
        return Boxes(rows[None] if rows.dim() == 1 else rows)

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


class Instances:
    """Fields of equal length about the instances of one image of (height, width); fields are attributes."""

    def __init__(self, image_size: tuple[int, int], **kwargs: Any) -> None:
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self._image_size

    def set(self, name: str, value: Any) -> None:
        """Add or replace a field; AssertionError if its length is another than that of the fields there."""
        if self._fields:
            assert len(value) == len(self), f"{name} has {len(value)} entries, these instances are {len(self)}"
        self._fields[name] = value

    def get(self, name: str) -> Any:
        """A field."""
        return self._fields[name]

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Forget a field."""
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """All fields by name."""
        return self._fields

    def to(self, device: Any) -> Instances:
        """A copy whose fields are on `device`."""
        moved = {name: value.to(device) if hasattr(value, "to") else value for name, value in self._fields.items()}
        return Instances(self._image_size, **moved)

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """Instances of one image size and the same fields, in order."""
        assert instance_lists, "nothing to put together"
        first = instance_lists[0]
        joined = Instances(first.image_size)
        for name, value in first.get_fields().items():
            values = [one.get(name) for one in instance_lists]
            if isinstance(value, Tensor):
                joined.set(name, torch.cat(values))
            elif isinstance(value, list):
                joined.set(name, list(itertools.chain(*values)))
            else:
                joined.set(name, type(value).cat(values))
        return joined

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(f"these instances have no field {name!r}")
        return self._fields[name]

    def __getitem__(self, item: Any) -> Instances:
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"instance {item} of {len(self)}")
            item = slice(item, item + 1 or None)
        return Instances(self._image_size, **{name: value[item] for name, value in self._fields.items()})

    def __len__(self) -> int:
        return next((len(value) for value in self._fields.values()), 0)

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("instances are indexed, not iterated over")

    def __repr__(self) -> str:
        return f"Instances(image_size={self._image_size}, fields={', '.join(self._fields)}, length={len(self)})"


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """(N,), (M,) boxes -> (N, M) intersection over union."""
    return box_ops.pairwise_iou(boxes1.tensor, boxes2.tensor)
