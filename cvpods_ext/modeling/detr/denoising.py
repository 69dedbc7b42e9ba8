"""Contrastive denoising (DINO, https://arxiv.org/abs/2203.03605, section 3.3): queries that start at disturbed objects.

A positive query starts near its object and has to find it; a negative one starts farther off and has to find nothing.
Shapes: N = images, O = objects of the batch, S = slots = most objects of one image, G = groups, R = 2 * G * O rows,
K = 2 * G * S queries per image, Q = ordinary queries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cvpods_ext.modeling.detr.boxes import inverse_sigmoid, to_centres, to_corners
from cvpods_ext.modeling.layers import to_device


@dataclass(frozen=True)
class Noise:
    """Random numbers of R rows.

    label_chance (R,) and box_share (R, 4) uniform in [0, 1); new_labels (R,) uniform over the classes; signs (R, 4)
    are -1 or 1.
    """

    label_chance: Tensor
    new_labels: Tensor
    signs: Tensor
    box_share: Tensor


DrawNoise = Callable[[int, int, torch.device], Noise]


def draw_noise(rows: int, num_classes: int, device: torch.device) -> Noise:
    """From the device's generator, which the engine seeds by run and iteration."""
    return Noise(
        torch.rand(rows, device=device),
        torch.randint(num_classes, (rows,), device=device),
        torch.randint(2, (rows, 4), device=device) * 2.0 - 1.0,
        torch.rand(rows, 4, device=device),
    )


@dataclass(frozen=True)
class Denoising:
    """Queries in 2 G blocks of S slots, positives and negatives of a group one after the other.

    labels (N, K) are noised labels, 0 where a slot is empty; `filled` (N, K) bool; box_logits (N, K, 4) of centre and
    size, 0 where a slot is empty.
    Positive g of object j of an image is query 2 * g * S + j.
    """

    labels: Tensor
    filled: Tensor
    box_logits: Tensor
    groups: int
    slots: int

    def blocked(self, queries: int) -> Tensor:
        """(K + Q, K + Q) bool, true where a row must not see a column.

        Groups do not see each other, and ordinary queries see no group; the groups see the ordinary queries.
        """
        extra = 2 * self.groups * self.slots
        group = torch.arange(extra, device=self.labels.device) // (2 * self.slots)
        group = torch.cat((group, group.new_full((queries,), -1)))
        return (group[None] >= 0) & (group[:, None] != group[None])


@dataclass(frozen=True)
class DenoisingSettings:
    """About `number` positives and negatives each per image; a label is drawn anew with half of `label_noise`."""

    number: int = 100
    label_noise: float = 0.5
    box_noise: float = 1.0
    draw: DrawNoise = draw_noise

    def groups(self, slots: int) -> int:
        """Number of groups for `slots` objects in the fullest image: at least 1, unless there is nothing to do."""
        return max(1, self.number // slots) if self.number and slots else 0


def make_denoising(
    labels: Sequence[Tensor], boxes: Sequence[Tensor], num_classes: int, settings: DenoisingSettings
) -> Denoising:
    """Noised copies of the objects of each image: labels (n,), boxes (n, 4) centre and size in [0, 1] of the image.

    No queries at all if the batch has no object or `settings.number` is 0.
    """
    counts = [len(one) for one in labels]
    slots = max(counts, default=0)
    groups = settings.groups(slots)
    device = labels[0].device
    noise = settings.draw(2 * groups * sum(counts), num_classes, device)
    image, slot = _places(counts, device)
    block = torch.arange(2 * groups, device=device).repeat_interleave(sum(counts))
    noised_labels = torch.cat(list(labels)).repeat(2 * groups)
    noised_labels = torch.where(noise.label_chance < 0.5 * settings.label_noise, noise.new_labels, noised_labels)
    noised_boxes = _disturb(torch.cat(list(boxes)).repeat(2 * groups, 1), noise, block % 2, settings.box_noise)
    logits = inverse_sigmoid(noised_boxes)

    at = (image.repeat(2 * groups), block * slots + slot.repeat(2 * groups))
    shape = (len(counts), 2 * groups * slots)
    filled = torch.ones_like(block, dtype=torch.bool)
    return Denoising(
        labels=noised_labels.new_zeros(shape).index_put_(at, noised_labels),
        filled=filled.new_zeros(shape).index_put_(at, filled),
        box_logits=logits.new_zeros((*shape, 4)).index_put_(at, logits),
        groups=groups,
        slots=slots,
    )


def _disturb(boxes: Tensor, noise: Noise, negative: Tensor, scale: float) -> Tensor:
    """Move every corner coordinate by up to half a side, by half to a whole side for negatives, and clip: (R, 4)."""
    half_sides = boxes[:, 2:].repeat(1, 2) / 2
    moved = to_corners(boxes) + (noise.box_share + negative[:, None]) * noise.signs * half_sides * scale
    return to_centres(moved.clamp(0, 1))  # corners may have crossed: a negative side counts as the smallest


def _places(counts: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Image and slot of every object, each (O,); copied, so that nothing waits for the device."""
    image = [i for i, count in enumerate(counts) for _ in range(count)]
    slot = [j for count in counts for j in range(count)]
    places = to_device(torch.tensor([image, slot], dtype=torch.int64), device)
    return places[0], places[1]
