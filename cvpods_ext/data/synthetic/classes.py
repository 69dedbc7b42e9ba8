"""The vocabulary of the synthetic set: a class is a shape, a colour and a texture.

Rare classes can be learnt because they are new combinations of attributes that frequent classes show often; they are
hard because some frequent class differs from them in a single attribute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cvpods_ext.errors import ConfigError


def _regular(corners: int, inner: float = 1.0) -> np.ndarray:
    """Corners on a circle, first one up; with `inner` < 1 every second corner moves inwards (a star)."""
    count = corners if inner == 1.0 else 2 * corners
    angle = np.arange(count) * (2 * np.pi / count)
    radius = np.where(np.arange(count) % 2, inner, 1.0)
    return np.stack((radius * np.sin(angle), -radius * np.cos(angle)), axis=1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack((x, -y), axis=1) / 16


def _crescent() -> np.ndarray:
    outer = np.linspace(0.22 * np.pi, 1.78 * np.pi, 18)
    inner = np.linspace(1.70 * np.pi, 0.30 * np.pi, 12)
    first = np.stack((np.cos(outer), np.sin(outer)), axis=1)
    second = np.stack((0.72 * np.cos(inner) + 0.38, 0.78 * np.sin(inner)), axis=1)
    return np.concatenate((first, second))


def _drop() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack((0.8 * np.sin(t) * np.sin(t / 2), -np.cos(t)), axis=1)


def _corners(*points: tuple[float, float]) -> Callable[[], np.ndarray]:
    return lambda: np.array(points, dtype=float)


# Outlines within [-1, 1]^2, y pointing down; the first ones differ most, since a small set uses only those.
SHAPES: tuple[tuple[str, Callable[[], np.ndarray]], ...] = (
    ("disc", lambda: _regular(24)),
    ("square", _corners((-1, -1), (1, -1), (1, 1), (-1, 1))),
    ("triangle", _corners((0, -1), (1, 0.85), (-1, 0.85))),
    ("star", lambda: _regular(5, inner=0.42)),
    (
        "cross",
        _corners(
            *((-0.33, -1), (0.33, -1), (0.33, -0.33), (1, -0.33), (1, 0.33), (0.33, 0.33)),
            *((0.33, 1), (-0.33, 1), (-0.33, 0.33), (-1, 0.33), (-1, -0.33), (-0.33, -0.33)),
        ),
    ),
    ("crescent", _crescent),
    ("arrow", _corners((0, -1), (1, 0.05), (0.4, 0.05), (0.4, 1), (-0.4, 1), (-0.4, 0.05), (-1, 0.05))),
    ("heart", _heart),
    ("bowtie", _corners((-1, -1), (0, -0.3), (1, -1), (1, 1), (0, 0.3), (-1, 1))),
    ("hook", _corners((-1, -1), (-0.3, -1), (-0.3, 0.3), (1, 0.3), (1, 1), (-1, 1))),
    ("gear", lambda: _regular(9, inner=0.72)),
    ("drop", _drop),
    ("hexagon", lambda: _regular(6)),
    ("bolt", _corners((0.1, -1), (0.9, -1), (0.35, -0.2), (0.9, -0.2), (-0.5, 1), (-0.15, 0.15), (-0.8, 0.15))),
    ("tee", _corners((-1, -1), (1, -1), (1, -0.35), (0.35, -0.35), (0.35, 1), (-0.35, 1), (-0.35, -0.35), (-1, -0.35))),
    ("kite", _corners((0, -1), (0.7, -0.3), (0, 1), (-0.7, -0.3))),
)

COLOURS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("red", (206, 38, 42)),
    ("blue", (34, 84, 200)),
    ("yellow", (238, 206, 36)),
    ("green", (40, 150, 60)),
    ("white", (238, 238, 236)),
    ("purple", (126, 52, 168)),
    ("cyan", (44, 188, 204)),
    ("orange", (244, 128, 24)),
    ("black", (28, 28, 32)),
    ("pink", (242, 138, 184)),
    ("brown", (116, 70, 38)),
    ("lime", (158, 218, 48)),
)

TEXTURES: tuple[str, ...] = ("plain", "striped", "dotted", "checked", "ringed", "halved", "framed")

MAX_CLASSES = len(SHAPES) * len(COLOURS) * len(TEXTURES)


@dataclass(frozen=True)
class ClassCode:
    """Positions in SHAPES, COLOURS and TEXTURES."""

    shape: int
    colour: int
    texture: int

    @property
    def name(self) -> str:
        """Like "striped_red_star"."""
        return f"{TEXTURES[self.texture]}_{COLOURS[self.colour][0]}_{SHAPES[self.shape][0]}"


def vocabulary_size(num_classes: int) -> tuple[int, int, int]:
    """How many shapes, colours and textures a set of `num_classes` uses: as few as their product allows."""
    if not 1 <= num_classes <= MAX_CLASSES:
        raise ConfigError(f"the synthetic set can have 1 to {MAX_CLASSES} classes, got {num_classes}")
    limits = (len(SHAPES), len(COLOURS), len(TEXTURES))
    used = [1, 1, 1]
    while used[0] * used[1] * used[2] < num_classes:
        share = [count / limit if count < limit else np.inf for count, limit in zip(used, limits, strict=True)]
        used[int(np.argmin(share))] += 1
    return used[0], used[1], used[2]


def choose_codes(num_classes: int, rng: np.random.Generator) -> list[ClassCode]:
    """Distinct classes in the order in which they should become rarer.

    Each next class is the one whose attributes were used least so far, so that the first (frequent) classes show
    every shape, colour and texture, and what remains for the tail has no attribute of its own.
    """
    sizes = vocabulary_size(num_classes)
    codes = np.stack(np.unravel_index(rng.permutation(np.prod(sizes)), sizes), axis=1)
    used = [np.zeros(size) for size in sizes]
    free = np.ones(len(codes), dtype=bool)
    chosen: list[ClassCode] = []
    for _ in range(num_classes):
        # relative use: a texture is shared by many classes anyway and must not outweigh the shapes
        usage = sum(used[axis][codes[:, axis]] * sizes[axis] for axis in range(3))
        position = int(np.argmin(np.where(free, usage, np.inf)))
        free[position] = False
        for axis in range(3):
            used[axis][codes[position, axis]] += 1
        chosen.append(ClassCode(*(int(value) for value in codes[position])))
    return chosen
