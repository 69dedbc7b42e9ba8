"""In which order images are trained on: endless, seeded, and the same for any number of processes.

A sampler says what one pass over the data holds. `BatchOrder` strings passes together, cuts them into batches, and
can start anywhere: passes before the start are drawn again from the seed, which takes milliseconds.

Shapes: L = images drawn in one pass, B = batches completed in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch


class Sampler(Protocol):
    """Draws one pass: (L,) positions of images, in training order."""

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """(L,) int64, drawn from `generator` alone."""
        ...


@dataclass(frozen=True)
class UniformSampler:
    """Every image once a pass, shuffled."""

    num_images: int

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """(num_images,) int64."""
        return torch.randperm(self.num_images, generator=generator)


@dataclass(frozen=True, eq=False)
class RepeatFactorSampler:
    """Every image as often as its factor says, fractions rounded at random anew in every pass, shuffled.

    Args:
        factors: (num_images,) float32, at least 1 (`statistics.image_repeat_factors`).
    """

    factors: torch.Tensor

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """(L,) int64, L about the sum of the factors."""
        whole = self.factors.trunc()
        up = torch.rand(len(self.factors), generator=generator) < self.factors - whole
        indices = torch.repeat_interleave(torch.arange(len(self.factors)), (whole + up).long())
        return indices[torch.randperm(len(indices), generator=generator)]


@dataclass(frozen=True, eq=False)
class BatchOrder:
    """Batches of one process, usable as the `batch_sampler` of a DataLoader.

    Batches are numbered over all processes; this one takes the numbers from `start` on that leave `rank` when
    divided by `world_size`. A batch is a list of (draw, image): `draw` counts all draws since the start of training
    and seeds the augmentation of this one, `image` is the position of the image.

    Args:
        groups: (num_images,) group of each image, or None. A batch then holds images of one group only; what is left
            of a group at the end of a pass opens its first batch of the next one, so that no image is lost.
    """

    sampler: Sampler
    seed: int
    batch_size: int
    groups: np.ndarray | None = None
    start: int = 0
    rank: int = 0
    world_size: int = 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        number = 0
        for batches in self._passes():
            first = max(self.start - number, 0)
            for offset in range(first, len(batches)):
                if (number + offset) % self.world_size == self.rank:
                    yield [(int(draw), int(image)) for draw, image in batches[offset]]
            number += len(batches)

    def _passes(self) -> Iterator[np.ndarray]:
        """(B, batch_size, 2) of draw and image, one array a pass."""
        generator = torch.Generator().manual_seed(self.seed)
        left_over = np.zeros((0, 2), np.int64)
        drawn = 0
        while True:
            images = self.sampler.draw(generator).numpy()
            draws = np.arange(drawn, drawn + len(images))
            drawn += len(images)
            batches, left_over = self._cut(np.concatenate((left_over, np.stack((draws, images), axis=1))))
            yield batches

    def _cut(self, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fill batches group by group, in the order in which they become full."""
        group = np.zeros(len(draws), np.int64) if self.groups is None else self.groups[draws[:, 1]]
        full, rest = [], []
        for value in np.unique(group):
            members = draws[group == value]
            used = len(members) // self.batch_size * self.batch_size
            full.append(members[:used].reshape(-1, self.batch_size, 2))
            rest.append(members[used:])
        batches, left_over = np.concatenate(full), np.concatenate(rest)
        by_last_draw = np.argsort(batches[:, -1, 0])
        return batches[by_last_draw], left_over[np.argsort(left_over[:, 0])]
