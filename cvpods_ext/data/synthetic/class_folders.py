"""A long-tailed set for image classification: one folder per class, one shape per image."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cvpods_ext.data.synthetic.classes import ClassCode, choose_codes
from cvpods_ext.data.synthetic.draw import draw_image
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.runtime.files import write_json
from cvpods_ext.runtime.progress import track

FORMAT = 1  # of the pictures; a change gives other files for the same options
JPEG_QUALITY = 90
SMALLEST_IMAGE = 32
RECIPE, UNFINISHED = "recipe.json", "unfinished.json"  # options of a complete set, and of one being drawn


@dataclass(frozen=True, kw_only=True)
class ClassFolderOptions:
    """Everything that determines a set: `most` training images of the first class and `ratio` times fewer of the last.

    Counts between fall exponentially, as in the long-tailed versions of CIFAR (https://arxiv.org/abs/1901.05555). The
    validation set has `images_val` images of every class. `difficulty` in [0, 1] as in `SyntheticOptions`.
    """

    num_classes: int = 20
    most: int = 300
    ratio: float = 100.0
    images_val: int = 25
    image_size: int = 48
    seed: int = 0
    difficulty: float = 0.4

    def __post_init__(self) -> None:
        if self.num_classes < 2 or self.images_val < 1 or not 1 <= self.ratio <= self.most:
            raise ConfigError(
                "a set needs two classes, a validation image of each, and a ratio from 1 to the images of the largest "
                f"class; got {self.num_classes}, {self.images_val} and {self.ratio} of {self.most}"
            )
        if self.image_size < SMALLEST_IMAGE or not 0 <= self.difficulty <= 1:
            raise ConfigError(f"image_size must be at least {SMALLEST_IMAGE}, and difficulty lie in [0, 1]")

    def counts(self) -> np.ndarray:
        """(num_classes,) int64 training images, most frequent first, at least 1."""
        share = np.arange(self.num_classes) / (self.num_classes - 1)
        return np.maximum(1, np.rint(self.most * self.ratio**-share)).astype(np.int64)

    def splits(self) -> dict[str, np.ndarray]:
        """(num_classes,) images of both splits."""
        return {"train": self.counts(), "val": np.full(self.num_classes, self.images_val)}


def generate(root: str | Path, **options: Any) -> Path:
    """Write <root>/shapes/{train,val}/<class>/*.jpg; returns <root>/shapes.

    The same `options` (fields of ClassFolderOptions) give the same bytes. A folder that already holds this very set is
    left as it is, and an interrupted one is completed; DataError if something else lies there.
    """
    settings = ClassFolderOptions(**options)
    folder = Path(root) / "shapes"
    recipe = {**asdict(settings), "format": FORMAT}
    if _is_complete(folder, recipe):
        return folder
    write_json(folder / UNFINISHED, recipe)
    codes = choose_codes(settings.num_classes, np.random.default_rng([settings.seed, FORMAT]))
    jobs = [
        (split, label, number)
        for split, counts in settings.splits().items()
        for label, count in enumerate(counts.tolist())
        for number in range(count)
    ]
    for split, label, number in track(jobs, "drawing", total=len(jobs)):
        place = folder / split / _folder_name(codes[label])
        place.mkdir(parents=True, exist_ok=True)
        picture = _draw(settings, codes, label, [number, int(split == "val")])
        picture.save(place / f"{number:05}.jpg", quality=JPEG_QUALITY)
    (folder / UNFINISHED).replace(folder / RECIPE)
    return folder


def _draw(settings: ClassFolderOptions, codes: list[ClassCode], label: int, number: list[int]) -> Image.Image:
    """One image of a class; its random numbers depend on nothing but the seed, the class and `number`."""
    rng = np.random.default_rng([settings.seed, FORMAT, label, *number])
    size = (settings.image_size, settings.image_size)
    while True:  # an object for which no place was left is drawn again
        picture, drawn = draw_image(rng, size, [label], codes, int(rng.integers(8)), settings.difficulty)
        if drawn[0] is not None:
            return picture


def _folder_name(code: ClassCode) -> str:
    return code.name.replace(" ", "_")


def _is_complete(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether this very set is there; DataError when its place is taken by something else."""
    remedy = "give another folder, or delete what is there first"
    if (folder / RECIPE).is_file():
        if _read(folder / RECIPE) != recipe:
            raise DataError(f"{folder / RECIPE} was not made with the same options; {remedy}")
        images = {split: int(counts.sum()) for split, counts in ClassFolderOptions(**_options(recipe)).splits().items()}
        if images != {split: sum(1 for _ in folder.glob(f"{split}/*/*.jpg")) for split in images}:
            raise DataError(f"{folder} has lost some of its images since it was drawn; {remedy}")
        return True
    if folder.is_dir() and any(folder.iterdir()) and _read(folder / UNFINISHED) != recipe:
        raise DataError(f"{folder} is not empty, and what lies there would be mixed with this set; {remedy}")
    return False


def _options(recipe: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in recipe.items() if name != "format"}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
