"""A small data set with label maps: coloured rectangles on noise, class k has colour k."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ground", "wall", "lamp", "cup")
COLOURS = np.array([[90, 90, 90], [220, 40, 40], [40, 220, 40], [40, 40, 220]])


def write(root: Path, images: int = 6, size: tuple[int, int] = (40, 56), seed: int = 0, first: int = 0) -> Path:
    """images/*.jpg, labels/*.png and classes.txt below `root`; `first` is the PNG value of class 0, 255 unlabelled."""
    rng = np.random.default_rng(seed)
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for i in range(images):
        labels = np.zeros(size, np.uint8)
        for _ in range(4):
            y, x = (int(rng.integers(0, side - 8)) for side in size)
            labels[y : y + int(rng.integers(6, 20)), x : x + int(rng.integers(6, 20))] = rng.integers(1, len(CLASSES))
        pixels = np.clip(COLOURS[labels] + rng.normal(0, 8, (*size, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"photo_{i:03}.jpg", quality=95)
        labels = labels + np.uint8(first)
        labels[:2, :2] = 0 if first else 255
        Image.fromarray(labels).save(root / "labels" / f"photo_{i:03}.png")
    return root


def files(root: Path, **changes) -> dict:
    """Arguments of LabelMapFiles for what `write` made."""
    paths = {"images": root / "images", "annotations": root / "labels", "classes": root / "classes.txt"}
    return {**{name: str(path) for name, path in paths.items()}, **changes}
