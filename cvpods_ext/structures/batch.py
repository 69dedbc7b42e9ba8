"""What is fed to a model: decoded images, and the target of the task for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor


class Target(Protocol):
    """Ground truth of one image; `structures.Targets` is that of detection."""

    image_id: int  # unique in its data set

    def to(self, device: torch.device | str) -> Any:
        """A copy whose tensors are on `device`, asynchronously where the memory is pinned."""
        ...

    def pin_memory(self) -> Any:
        """A page-locked copy."""
        ...


T = TypeVar("T", bound=Target)


@dataclass
class Batch(Generic[T]):
    """Images as they were decoded, uint8 (3, H, W) of differing size, and the targets of the task."""

    images: list[Tensor]
    targets: list[T]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_ids(self) -> list[int]:
        """Ids from the annotation file, for messages."""
        return [target.image_id for target in self.targets]

    def to(self, device: torch.device | str) -> Batch[T]:
        """Copy to `device`, asynchronously where the memory is pinned."""
        return Batch(
            [image.to(device, non_blocking=True) for image in self.images],
            [target.to(device) for target in self.targets],
        )

    def pin_memory(self) -> Batch[T]:
        """Page-locked copy."""
        return Batch([i.pin_memory() for i in self.images], [t.pin_memory() for t in self.targets])
