"""Label maps as pictures: every class in its colour over the image, a legend of the largest ones. Imports no torch.

Shapes: H, W = image pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cvpods_ext.tasks.drawing import LEGIBLE_SIDE, label_colour, to_picture

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
OPACITY = 0.55
LEGEND = 8  # classes


def draw_labels(
    image: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    class_names: Sequence[str],
    channels: Literal["RGB", "BGR"] = "RGB",
) -> Image.Image:
    """Paint a label map (H, W) over its image (3, H, W) uint8; unlabelled pixels stay, the legend lies below."""
    picture = to_picture(image, channels)
    values = np.asarray(labels if isinstance(labels, np.ndarray) else labels.detach().cpu())
    if values.shape != (picture.height, picture.width):
        raise ValueError(f"a label map of {values.shape} for an image of {(picture.height, picture.width)}")
    colours = np.array([label_colour(label) for label in range(len(class_names))], dtype=np.float64)
    pixels = np.asarray(picture).astype(np.float64)
    known = values != IGNORE
    pixels[known] = (1 - OPACITY) * pixels[known] + OPACITY * colours[values[known]]
    factor = max(1, math.ceil(LEGIBLE_SIDE / max(picture.size)))
    painted = Image.fromarray(pixels.round().astype(np.uint8))
    painted = painted.resize((painted.width * factor, painted.height * factor), Image.Resampling.NEAREST)
    return _with_legend(painted, values[known], class_names)


def _with_legend(painted: Image.Image, values: np.ndarray, class_names: Sequence[str]) -> Image.Image:
    """The picture above the names of its largest classes and their shares."""
    counts = np.bincount(values, minlength=len(class_names))
    largest = [label for label in np.argsort(-counts, kind="stable")[:LEGEND].tolist() if counts[label]]
    font_size = max(12, round(max(painted.size) / 42))
    line, font = round(font_size * 1.5), ImageFont.load_default(font_size)
    columns = max(1, painted.width // (font_size * 14))
    rows = math.ceil(len(largest) / columns)
    sheet = Image.new("RGB", (painted.width, painted.height + rows * line + (line // 3 if rows else 0)), (255,) * 3)
    sheet.paste(painted, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for k, label in enumerate(largest):
        x, y = k % columns * painted.width // columns + 4, painted.height + line // 3 + k // columns * line
        pen.rectangle((x, y, x + font_size, y + font_size), fill=label_colour(label))
        share = f"{class_names[label]} {100 * counts[label] / counts.sum():.0f} %"
        pen.text((x + font_size + 5, y + font_size // 2), share, fill=(20, 20, 20), font=font, anchor="lm")
    return sheet
