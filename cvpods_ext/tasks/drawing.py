"""Drawing that tasks share: shapes with captions on an image, sheets of pictures, a colour for every label.

Shapes: H, W = image pixels. Small images are enlarged first, so that captions stay legible. Imports no torch.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pycocotools.mask as coco_mask
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

Colour = tuple[int, int, int]

LEGIBLE_SIDE = 480  # pixels; smaller images are enlarged by a whole factor until the longer side is this long
MASK_OPACITY = 0.22  # an object keeps its own colour; the line along its edge has the label's
GOLDEN_RATIO = 0.6180339887  # steps around the hue circle, so that neighbouring labels differ


@dataclass(frozen=True)
class Shape:
    """One object to draw: box (x1, y1, x2, y2) in image pixels, its caption, and an (H, W) bool mask if any."""

    box: tuple[float, float, float, float]
    caption: str
    colour: Colour
    mask: np.ndarray | None = None


def draw_shapes(picture: Image.Image, shapes: Sequence[Shape], side: int = LEGIBLE_SIDE) -> Image.Image:
    """Draw `shapes` on a copy of `picture`, enlarged until it is `side` pixels long; the first one ends up on top.

    Captions never leave the picture; an empty one is not written.
    """
    factor = max(1, math.ceil(side / max(picture.size)))
    canvas = picture.convert("RGB").resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    stroke = max(2, round(max(canvas.size) / 320))
    for shape in reversed(shapes):
        if shape.mask is not None:
            canvas = _tint(canvas, shape.mask, shape.colour, factor)
    pen = ImageDraw.Draw(canvas)
    scaled = [tuple(factor * side for side in shape.box) for shape in shapes]
    for shape, box in reversed(list(zip(shapes, scaled, strict=True))):
        x1, y1, x2, y2 = box
        pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=shape.colour, width=stroke)
    font = _font(max(12, round(max(canvas.size) / 42)))
    placed: list[tuple[float, float, float, float]] = []
    for shape, box in zip(shapes, scaled, strict=True):
        if shape.caption:
            placed.append(_write_caption(pen, font, canvas.size, shape, box, placed))
    return canvas


def contact_sheet(images: Sequence[Image.Image], titles: Sequence[str], columns: int = 0) -> Image.Image:
    """Pictures in a grid, each under its title; `columns=0` makes the sheet about as wide as high."""
    if len(images) != len(titles):
        raise ValueError(f"{len(images)} images but {len(titles)} titles")
    columns = columns or max(1, math.ceil(math.sqrt(len(images))))
    width = max((image.width for image in images), default=1)
    height = max((image.height for image in images), default=1)
    font_size = max(13, round(width / 32))
    font, line = _font(font_size), round(font_size * 1.7)
    gap = max(6, width // 60)
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + line + gap) + gap), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for k, (image, title) in enumerate(zip(images, titles, strict=True)):
        x, y = gap + (k % columns) * (width + gap), gap + (k // columns) * (height + line + gap)
        pen.text((x, y + line // 2), _shorten(title, font, width), fill=(20, 20, 20), font=font, anchor="lm")
        sheet.paste(image, (x, y + line))
    return sheet


def to_picture(image: Tensor | np.ndarray, channels: Literal["RGB", "BGR"] = "RGB") -> Image.Image:
    """A (3, H, W) uint8 tensor or array as a picture."""
    pixels = np.asarray(image if isinstance(image, np.ndarray) else image.detach().cpu())
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected a (3, H, W) uint8 image, got {pixels.shape} {pixels.dtype}")
    if channels == "BGR":
        pixels = pixels[::-1]
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def label_colour(label: int) -> Colour:
    """A saturated colour of its own for every label, the same in all pictures."""
    hue = (label * GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.75 + 0.25 * (label % 2))
    return round(red * 255), round(green * 255), round(blue * 255)


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """COCO RLE -> (H, W) bool."""
    return coco_mask.decode(rle).astype(bool)  # type: ignore[arg-type]


def _tint(canvas: Image.Image, mask: np.ndarray, colour: Colour, factor: int) -> Image.Image:
    """Lay a translucent colour over the mask, and the full colour along its edge."""
    if mask.shape != (canvas.height // factor, canvas.width // factor):
        raise ValueError(f"a mask of {mask.shape} on an image of {(canvas.height // factor, canvas.width // factor)}")
    stencil = Image.fromarray(np.where(mask, round(255 * MASK_OPACITY), 0).astype(np.uint8))
    canvas.paste(colour, mask=stencil.resize(canvas.size, Image.Resampling.NEAREST))
    large = stencil.resize(canvas.size, Image.Resampling.NEAREST).point(lambda value: 255 if value else 0)
    edge = ImageChops.subtract(large, large.filter(ImageFilter.MinFilter(3)))
    canvas.paste(colour, mask=edge)
    return canvas


def _write_caption(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
    shape: Shape,
    box: Sequence[float],
    placed: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float]:
    """Write the caption at the corner of the box where it covers the least of other captions; returns its area."""
    caption = _shorten(shape.caption, font, size[0] - 8)
    width, height = font.getlength(caption) + 6, font.size * 1.35
    x1, y1, x2, y2 = box
    area: tuple[float, float, float, float]
    corners = ((x1, y1 - height), (x1, y1), (x1, y2), (x1, y2 - height), (x2 - width, y1 - height), (x2 - width, y2))
    areas = []
    for x, y in corners:
        left, top = min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))
        areas.append((left, top, left + width, top + height))
    area = min(areas, key=lambda one: sum(_overlap(one, other) for other in placed))
    red, green, blue = shape.colour
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 140
    pen.rectangle(area, fill=shape.colour)
    middle = (area[1] + area[3]) / 2
    pen.text((area[0] + 3, middle), caption, fill=(0, 0, 0) if bright else (255, 255, 255), font=font, anchor="lm")
    return area


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own typeface, so that pictures look the same on every machine."""
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont), "this Pillow was built without FreeType"
    return font


def _overlap(first: Sequence[float], second: Sequence[float]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0) * max(height, 0)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """Cut a text that does not fit into `width` pixels, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
