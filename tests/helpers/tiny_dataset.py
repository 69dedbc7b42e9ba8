"""Small annotation files and photos for the tests of this folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cvpods_ext.config.schema import DatasetFiles

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def annotation(number: int, image: int, category: int, **changes: Any) -> dict[str, Any]:
    """A sound 20 x 20 square, with `changes`; a change to None removes the key."""
    entry = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [10.0, 10.0, 20.0, 20.0],
        "area": 400.0,
        "segmentation": SQUARE,
        **changes,
    }
    return {key: value for key, value in entry.items() if value is not None}


def image(number: int, width: int = 64, height: int = 48, **changes: Any) -> dict[str, Any]:
    entry = {"id": number, "width": width, "height": height, "file_name": f"{number}.png", **changes}
    return {key: value for key, value in entry.items() if value is not None}


def categories(*ids: int) -> list[dict[str, Any]]:
    return [{"id": number, "name": f"class {number}"} for number in ids]


def write_json(path: Path, images: list, annotations: list, category_list: list, **more: Any) -> Path:
    content = {"info": {}, "images": images, "annotations": annotations, "categories": category_list, **more}
    path.write_text(json.dumps(content))
    return path


def write_photo(path: Path, width: int = 64, height: int = 48, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_dataset(folder: Path, images: int = 6, name: str = "train") -> DatasetFiles:
    """`images` photos, wide and tall by turns, two annotations each, category ids 3 and 7."""
    entries, annotations = [], []
    for number in range(1, images + 1):
        width, height = (64, 48) if number % 2 else (48, 64)
        write_photo(folder / f"{number}.png", width, height, seed=number)
        entries.append(image(number, width, height))
        annotations += [annotation(2 * number, number, 3), annotation(2 * number + 1, number, 7)]
    path = write_json(folder / f"{name}.json", entries, annotations, categories(7, 3))
    return DatasetFiles(annotations=str(path), images=str(folder))
