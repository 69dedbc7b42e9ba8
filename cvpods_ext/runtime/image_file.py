"""Opening image files of strangers: regular files of known formats, bounded in size. Imports no torch."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from cvpods_ext.errors import DataError

# Others start programs (PostScript), follow references to other files, or are decoded by little-tested code.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF")
MOST_PIXELS = 178_956_970  # what Pillow itself takes for an attack


@contextmanager
def open_image(path: Path, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """The image in a file, not decoded yet, so that its size can be checked first.

    Raises FileNotFoundError, and DataError for everything else that opening or using it in the body meets: pipes and
    devices (without waiting for them), other formats, more pixels than `MOST_PIXELS`, damaged files.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as stream:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise DataError("it is no file")
            with Image.open(stream, formats=formats) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise DataError(f"it has {image.width} x {image.height} pixels, more than any image that is read")
                yield image
    except (FileNotFoundError, DataError):
        raise
    except Image.UnidentifiedImageError:
        raise DataError(f"it is none of {', '.join(formats)}, or damaged") from None
    except Exception as error:  # damage makes Pillow raise nearly anything
        lines = str(error).splitlines()
        raise DataError(lines[0][:200] if lines else type(error).__name__) from error
