"""A small data set of one's own with an experiment folder and perfect detections, to be spoilt in one way by a test."""

import json
from pathlib import Path
from typing import Any

from tiny_dataset import write_photo

NAMES = ("apple", "bolt", "cup")
WIDTH, HEIGHT = 96, 72

CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.bases import MINI
from cvpods_ext.config.schema import DatasetFiles

config = override(
    MINI,
    data=dict(
        train=DatasetFiles(annotations="{train}", images="images"),
        test=DatasetFiles(annotations="{val}", images="images"),
    ),
    model=dict(init="none"),
    schedule=dict(iters=2, warmup_iters=1, batch_size=2, images_per_device=2),
)
"""
NET = Path(__file__).parents[2] / "playground" / "mini" / "mask_rcnn.narrow.fpn64.box.96.plain" / "net.py"


class OwnData:
    """Four training and two test images with an object of every class each; `train`, `val` and `results` can be changed
    until `write` puts them into `folder`, as datasets/train.json, datasets/val.json, res.json and exp/.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train = _document("t", images=4)
        self.val = _document("v", images=2)
        self.results = [
            {key: one[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 0.9}
            for one in json.loads(json.dumps(self.val["annotations"]))
        ]
        for row in self.results:
            row["segmentation"] = _rle(row["bbox"])
        self.files = {"train": "train.json", "val": "val.json"}

    def write(self) -> None:
        """Write everything as it stands now."""
        datasets = self.folder / "datasets"
        (datasets / "images").mkdir(parents=True, exist_ok=True)
        for document, prefix in ((self.train, "t"), (self.val, "v")):
            for number in range(4 if prefix == "t" else 2):
                write_photo(datasets / "images" / f"{prefix}{number}.png", WIDTH, HEIGHT, seed=number)
            name = self.files["train" if prefix == "t" else "val"]
            (datasets / name).write_bytes(encoded(document))
        (self.folder / "res.json").write_bytes(encoded(self.results))
        (self.folder / "exp").mkdir(exist_ok=True)
        (self.folder / "exp" / "config.py").write_text(CONFIG.format(**self.files))
        (self.folder / "exp" / "net.py").write_text(NET.read_text(encoding="utf-8"))


def encoded(document: Any) -> bytes:
    """JSON as bytes; bytes stay as they are, for files that are no JSON."""
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def _document(prefix: str, images: int) -> dict[str, Any]:
    first = 1 if prefix == "t" else 1001
    entries = [
        {"id": first + k, "width": WIDTH, "height": HEIGHT, "file_name": f"{prefix}{k}.png"} for k in range(images)
    ]
    annotations = []
    for k in range(images):
        for category in range(1, len(NAMES) + 1):
            x, y, w, h = 4.0 + 28 * (category - 1), 6.0 + 8 * k, 20.0, 16.0
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": first + k,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    categories = [{"id": k, "name": name} for k, name in enumerate(NAMES, start=1)]
    return {"images": entries, "annotations": annotations, "categories": categories}


def _rle(box: list[float]) -> dict[str, Any]:
    """The mask of a box, as runs in COCO's column order."""
    x, y, w, h = map(int, box)
    counts = [x * HEIGHT + y]
    for _ in range(w - 1):
        counts += [h, HEIGHT - h]
    counts += [h, HEIGHT * WIDTH - sum(counts) - h]
    return {"size": [HEIGHT, WIDTH], "counts": counts}
