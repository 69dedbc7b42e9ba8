"""Images with their classes written below. Imports no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cvpods_ext.tasks.drawing import to_picture

if TYPE_CHECKING:
    from torch import Tensor

WIDTH = 320  # pixels of a drawn image
FONT = 16
RIGHT, WRONG, NEUTRAL = (0, 110, 40), (170, 20, 20), (20, 20, 20)


def with_caption(
    image: Tensor | np.ndarray | Image.Image,
    lines: Sequence[tuple[str, tuple[int, int, int]]],
    channels: Literal["RGB", "BGR"] = "RGB",
) -> Image.Image:
    """The image, (3, H, W) uint8 or a photo, `WIDTH` wide above lines of text in their colours."""
    picture = image if isinstance(image, Image.Image) else to_picture(image, channels)
    height = max(1, round(picture.height * WIDTH / picture.width))
    picture = picture.resize((WIDTH, min(height, 2 * WIDTH)), Image.Resampling.BICUBIC)
    font, line = ImageFont.load_default(FONT), round(FONT * 1.4)
    folded = [(part, colour) for text, colour in lines for part in textwrap.wrap(text, WIDTH * 2 // FONT)[:2]]
    sheet = Image.new("RGB", (WIDTH, picture.height + line * len(folded) + line // 2), (255, 255, 255))
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for k, (text, colour) in enumerate(folded):
        pen.text((4, picture.height + line // 4 + k * line), text, fill=colour, font=font)
    return sheet
