"""A small data set with a folder per class: noise around one colour a class, many images of the first classes."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"ant": (200, 60, 60), "bee": (60, 200, 60), "cat": (60, 60, 200), "dog": (200, 200, 60)}


def write(root: Path, counts=(12, 6, 3, 2), size: tuple[int, int] = (40, 56), seed: int = 0) -> Path:
    """<class>/photo_*.jpg below `root`, `counts` of each class."""
    rng = np.random.default_rng(seed)
    for (name, colour), count in zip(COLOURS.items(), counts, strict=False):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.clip(np.array(colour) + rng.normal(0, 25, (*size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"photo_{i:03}.jpg", quality=95)
    return root


def write_list(path: Path, root: Path) -> Path:
    """The files below `root` with labels in the order of their folders, "path label" a line."""
    folders = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    lines = [
        f"{folder}/{file.name} {k}" for k, folder in enumerate(folders) for file in sorted((root / folder).iterdir())
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
