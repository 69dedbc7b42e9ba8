"""Draws one synthetic image and says which polygons of each object remain visible.

Shapes: S = supersampling factor, H, W = image pixels, V = vertices. Objects are drawn one over the other on a canvas
of (S H, S W); an owner map remembers which object each canvas pixel belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass

import contourpy
import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import label as label_regions

from cvpods_ext.data.synthetic.classes import COLOURS, SHAPES, TEXTURES, ClassCode

SUPERSAMPLING = 2
MIN_SIDE = 14.0  # pixels; below, a texture cannot be told from another
MEDIAN_SIDE, LARGE_SIDE = 0.05, 0.45  # of the longer image side: LVIS median, and a cap near its 95% quantile
MIN_VISIBLE = 0.7  # of an object's pixels; placements that hide more of another one are refused
ATTEMPTS = 6  # placements tried for an object before it is made smaller
SIMPLIFY = 0.3  # pixels that a simplified outline may be off


@dataclass(frozen=True)
class DrawnObject:
    """One visible object: its label and its visible outline as flat [x0, y0, x1, y1, ...] polygons in pixels."""

    label: int
    polygons: list[list[float]]


def room_for_objects(height: int, width: int) -> int:
    """How many objects of median size an image can hold without crowding."""
    return max(3, int(0.4 * height * width / _median_side(max(height, width)) ** 2))


def _median_side(longer: int) -> float:
    return max(MEDIAN_SIDE * longer, 1.6 * MIN_SIDE)


def draw_image(
    rng: np.random.Generator,
    size: tuple[int, int],
    labels: list[int],
    codes: list[ClassCode],
    scene: int,
    difficulty: float,
) -> tuple[Image.Image, list[DrawnObject | None]]:
    """Draw one object for each of `labels` (classes are looked up in `codes`) into an image of (height, width).

    `difficulty` in [0, 1] weakens the textures, shifts the colours and adds noise. The list answers `labels` one by
    one; None means that no place was left for that object.
    """
    height, width = size
    canvas = _background(rng, height, width, scene).repeat(SUPERSAMPLING, axis=0).repeat(SUPERSAMPLING, axis=1)
    owners = _OwnerMap(canvas.shape[:2])
    places = []
    for label in labels:
        pose = _place(rng, owners, codes[label])
        places.append(None if pose is None else owners.claim(pose))
        if pose is not None:
            _paint(rng, canvas, pose, codes[label], difficulty)
    picture = Image.fromarray(canvas).reduce(SUPERSAMPLING)
    drawn = [
        None if place is None else DrawnObject(label, owners.visible_polygons(place))
        for label, place in zip(labels, places, strict=True)
    ]
    return _add_noise(rng, picture, difficulty), drawn


@dataclass(frozen=True)
class _Pose:
    """Where an outline (V, 2) lies on the canvas: centre and half sides in canvas pixels, rotation in radians."""

    outline: np.ndarray
    centre: np.ndarray
    half: np.ndarray
    angle: float
    mask: np.ndarray  # bool, of the window that starts at `corner`
    corner: tuple[int, int]  # x, y

    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the mask on the canvas."""
        x, y = self.corner
        return slice(y, y + self.mask.shape[0]), slice(x, x + self.mask.shape[1])


class _OwnerMap:
    """Which object each canvas pixel shows, so that what is annotated is what can be seen."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.owner = np.full(shape, -1, dtype=np.int16)
        self.poses: list[_Pose] = []
        self.drawn = np.zeros(0, dtype=np.int64)  # pixels of each object
        self.visible = np.zeros(0, dtype=np.int64)  # and how many of them are not covered

    def claim(self, pose: _Pose) -> int:
        """Lay a new object on top; its number."""
        pixels = int(pose.mask.sum())
        self.visible = np.append(self.visible - self._hidden(pose), pixels)
        self.drawn = np.append(self.drawn, pixels)
        self.owner[pose.window()][pose.mask] = len(self.poses)
        self.poses.append(pose)
        return len(self.poses) - 1

    def accepts(self, pose: _Pose) -> bool:
        """Whether all objects below would stay visible to MIN_VISIBLE, and none would get a hole."""
        hidden = self._hidden(pose)
        if (self.visible - hidden < MIN_VISIBLE * self.drawn).any():
            return False
        return not any(_has_hole(self._left_of(below, pose)) for below in np.flatnonzero(hidden).tolist())

    def _hidden(self, pose: _Pose) -> np.ndarray:
        """How many pixels of each object the new one covers."""
        covered = self.owner[pose.window()][pose.mask]
        return np.bincount(covered[covered >= 0], minlength=len(self.poses))

    def _left_of(self, below: int, pose: _Pose) -> np.ndarray:
        """Bitmap, in its own window, of what would be left of object `below`."""
        rows, columns = self.poses[below].window()
        left = self.owner[rows, columns] == below
        own_rows, own_columns = pose.window()
        top, end = max(rows.start, own_rows.start), min(rows.stop, own_rows.stop)
        start, stop = max(columns.start, own_columns.start), min(columns.stop, own_columns.stop)
        over = pose.mask[
            top - own_rows.start : end - own_rows.start, start - own_columns.start : stop - own_columns.start
        ]
        left[top - rows.start : end - rows.start, start - columns.start : stop - columns.start] &= ~over
        return left

    def visible_polygons(self, index: int) -> list[list[float]]:
        """The drawn outline itself while nothing covers it, else what is left of it, in image pixels."""
        pose = self.poses[index]
        if self.visible[index] == self.drawn[index]:
            rings = [pose.outline / SUPERSAMPLING]
        else:
            rings = [
                _simplify((ring + pose.corner) / SUPERSAMPLING) for ring in _rings(self.owner[pose.window()] == index)
            ]
        return [np.round(ring, 2).reshape(-1).tolist() for ring in rings if len(ring) >= 3]


def _place(rng: np.random.Generator, owners: _OwnerMap, code: ClassCode) -> _Pose | None:
    """A place for one more object where it hides no other one too much; it shrinks until it finds one."""
    longer = max(owners.owner.shape) / SUPERSAMPLING
    median, largest = _median_side(int(longer)), LARGE_SIDE * longer
    spread = np.log(largest / median) / 1.645  # the cap is the 95% quantile, as in LVIS at full size
    side = float(np.clip(median * np.exp(spread * rng.standard_normal()), MIN_SIDE, largest))
    while True:
        for _ in range(ATTEMPTS):
            pose = _pose(rng, owners.owner.shape, code, side)
            if pose is not None and owners.accepts(pose):
                return pose
        if side <= MIN_SIDE:
            return None
        side = max(MIN_SIDE, side * 0.7)


def _pose(rng: np.random.Generator, shape: tuple[int, ...], code: ClassCode, side: float) -> _Pose | None:
    """A random position, aspect and rotation; None if the object is larger than the canvas."""
    aspect = np.exp(0.5 * np.clip(0.25 * rng.standard_normal(), -0.5, 0.5))
    half = 0.5 * side * SUPERSAMPLING * np.array([aspect, 1 / aspect])
    angle = np.deg2rad(rng.uniform(-20, 20))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = (SHAPES[code.shape][1]() * half) @ turn
    extent = np.array([shape[1], shape[0]])
    low, high = -outline.min(axis=0), extent - outline.max(axis=0)
    if (high < low).any():
        return None
    centre = rng.uniform(low, high)
    outline = outline + centre
    corner = np.floor(outline.min(axis=0)).astype(int).clip(0)
    width, height = (np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 1, extent) - corner).tolist()
    stamp = Image.new("1", (width, height))
    # pixel centres decide: PIL has them at integers, the annotation at halves
    ImageDraw.Draw(stamp).polygon([tuple(point) for point in (outline - corner - 0.5).tolist()], fill=1)
    return _Pose(outline, centre, half, float(angle), np.array(stamp), (int(corner[0]), int(corner[1])))


def _rings(mask: np.ndarray) -> list[np.ndarray]:
    """Closed boundary lines of a bitmap, holes included: list of (V, 2) x, y in its pixels, edges at integers."""
    lines = contourpy.contour_generator(z=np.pad(mask, 1).astype(np.float64)).lines(0.5)
    return [np.asarray(line) - 0.5 for line in lines]


def _has_hole(mask: np.ndarray) -> bool:
    """Whether background is enclosed, which polygons could not say."""
    background = np.pad(~mask, 1, constant_values=True)
    regions = np.zeros(background.shape, dtype=np.int32)
    label_regions(background, output=regions)
    return int(regions.max()) > 1


def signed_area(ring: np.ndarray) -> float:
    """Shoelace area of a closed (V, 2) ring; its sign says which way it turns."""
    x, y = ring[:, 0], ring[:, 1]
    return 0.5 * float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def _simplify(ring: np.ndarray) -> np.ndarray:
    """Drop vertices of a closed (V, 2) ring that are closer than SIMPLIFY to the chord (Douglas and Peucker, 1973)."""
    ring = ring[:-1] if np.array_equal(ring[0], ring[-1]) else ring
    start = int(np.argmin(ring.sum(axis=1)))
    ring = np.roll(ring, -start, axis=0)
    far = int(np.argmax(((ring - ring[0]) ** 2).sum(axis=1)))
    keep = np.zeros(len(ring) + 1, dtype=bool)
    closed = np.concatenate((ring, ring[:1]))
    keep[[0, far]] = True
    spans = [(0, far), (far, len(ring))]
    while spans:
        first, last = spans.pop()
        if last - first < 2:
            continue
        chord = closed[last] - closed[first]
        offset = closed[first + 1 : last] - closed[first]
        length = max(float(np.hypot(*chord)), 1e-9)
        distance = np.abs(chord[0] * offset[:, 1] - chord[1] * offset[:, 0]) / length
        worst = int(np.argmax(distance))
        if distance[worst] > SIMPLIFY:
            middle = first + 1 + worst
            keep[middle] = True
            spans += [(first, middle), (middle, last)]
    return closed[keep]


def _paint(rng: np.random.Generator, canvas: np.ndarray, pose: _Pose, code: ClassCode, difficulty: float) -> None:
    """Fill the object's pixels with its two-tone texture, in the object's own turned frame."""
    rows, columns = pose.window()
    y, x = np.mgrid[rows, columns] + 0.5
    x, y = x - pose.centre[0], y - pose.centre[1]
    u = (np.cos(pose.angle) * x - np.sin(pose.angle) * y) / pose.half[0]
    v = (np.sin(pose.angle) * x + np.cos(pose.angle) * y) / pose.half[1]
    nominal = np.array(COLOURS[code.colour][1], dtype=float)
    darker = nominal.mean() > 90  # dark stripes on a bright class, bright ones on a dark class
    base = nominal * rng.uniform(1 - 0.25 * difficulty, 1.0) + rng.normal(0, 22 * difficulty, size=3)
    other = base * 0.35 if darker else base * 0.4 + 140
    strength = 1.0 - 0.5 * difficulty * rng.random()
    second = base + strength * (other - base)
    shade = 1.0 - 0.18 * (0.5 + 0.5 * v)  # light from above
    tone = np.where(_pattern(TEXTURES[code.texture], u, v)[..., None], second, base) * shade[..., None]
    canvas[rows, columns][pose.mask] = np.clip(tone, 0, 255).astype(np.uint8)[pose.mask]


def _pattern(texture: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Where the second tone goes, for coordinates in [-1, 1] across the object."""
    if texture == "striped":
        return np.mod(v, 0.66) < 0.33
    if texture == "dotted":
        return (np.mod(u + 0.3, 0.6) - 0.3) ** 2 + (np.mod(v + 0.3, 0.6) - 0.3) ** 2 < 0.035
    if texture == "checked":
        return (np.floor(u / 0.5) + np.floor(v / 0.5)) % 2 == 0
    if texture == "ringed":
        return np.mod(np.hypot(u, v), 0.5) < 0.22
    if texture == "halved":
        return u > 0
    if texture == "framed":
        return np.maximum(np.abs(u), np.abs(v)) > 0.62
    return np.zeros(u.shape, dtype=bool)


def _background(rng: np.random.Generator, height: int, width: int, scene: int) -> np.ndarray:
    """(height, width, 3) uint8 of muted colour: a gradient with clouds, planks, tiles or lines, by scene."""
    base = rng.uniform(70, 185) + rng.uniform(-28, 28, size=3)
    y, x = np.mgrid[0:height, 0:width]
    slope = rng.uniform(-30, 30, size=2)
    light = slope[0] * (y / height - 0.5) + slope[1] * (x / width - 0.5)
    cells = rng.uniform(-1, 1, size=(int(rng.integers(3, 9)), int(rng.integers(3, 9)))).astype(np.float32)
    clouds = np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))
    period = rng.uniform(0.1, 0.3) * max(height, width)
    shift = rng.uniform(0, period, size=2)
    pattern = (
        np.zeros_like(light),
        np.mod(y + shift[0], period) / period - 0.5,  # planks
        ((np.floor((x + shift[1]) / period) + np.floor((y + shift[0]) / period)) % 2) - 0.5,  # tiles
        (np.mod(x + y + shift[0], period) < 0.12 * period) - 0.12,  # slanted lines
    )[scene % 4]
    grey = light + 16 * clouds + rng.uniform(8, 26) * pattern
    return np.clip(base + grey[..., None], 0, 255).astype(np.uint8)


def _add_noise(rng: np.random.Generator, picture: Image.Image, difficulty: float) -> Image.Image:
    pixels = np.asarray(picture, dtype=np.float32)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * (2 + 10 * difficulty)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
