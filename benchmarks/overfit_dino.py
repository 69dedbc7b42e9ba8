"""Whether the whole path of DINO can learn: a small one memorises a few real photos with all 1,203 LVIS classes.

Trains and tests on the same photos; a correct pipeline exceeds a box AP of 90, one with a mistake in coordinates,
labels, matching, denoising or post-processing does not.

  python benchmarks/overfit_dino.py ../shared/data/datasets --out benchmarks/overfit_dino.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from overfit_photos import choose_photos, run

CONFIG = '''"""Memorise a few photos."""

from cvpods_ext.config import DatasetFiles, override
from cvpods_ext.config.bases_dino import MINI_DINO

PHOTOS = DatasetFiles(annotations="{json}", images="coco")
config = override(
    MINI_DINO,
    data=dict(
        train=PHOTOS, test=PHOTOS, flip_probability=0.0,
        train_sizes=({side},), train_max_size={longest}, test_size={side}, test_max_size={longest},
    ),
    model=dict(init="none", width=128, hidden=512, queries=100, denoising_number=60),
    schedule=dict(iters={iters}, batch_size={photos}, images_per_device={photos}, lr=4e-4),
    log_every=50, checkpoint_every=10_000, picture_every=0,
)
'''
NET = '''"""A narrow DINO; group norm, since a few photos are no batch to measure."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.detr.build import dino
from cvpods_ext.modeling.detr.model import DINO


def build_model(cfg: DetectionConfig) -> DINO:
    """Build the detector that config.py trains."""
    stages = (Stage(1, 32, 32), Stage(1, 64, 64), Stage(1, 96, 96), Stage(1, 128, 128))
    backbone = ResNet(stages, stem_channels=32, bottleneck=False, norm="GN", freeze_at=0)
    return dino(cfg.model, num_classes=num_classes(cfg.data, cfg.folder), backbone=backbone)
'''


def main() -> int:
    """Train, test, print and write the numbers; exit status 1 below a box AP of 90."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("datasets", type=Path, help="data root with coco/ and lvis/lvis_v1_train.json")
    parser.add_argument("--photos", type=int, default=6, help="how many (default: 6)")
    parser.add_argument("--iters", type=int, default=1000, help="training iterations (default: 1000)")
    parser.add_argument("--side", type=int, default=192, help="shortest edge in pixels (default: 192)")
    parser.add_argument("--out", type=Path, help="write the figures there as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, subset = Path(temporary) / "overfit", Path(temporary) / "photos.json"
        folder.mkdir()
        content = json.loads((given.datasets / "lvis" / "lvis_v1_train.json").read_text())
        chosen = choose_photos(content, given.photos)
        subset.write_text(json.dumps(chosen))
        facts = dict(json=subset, side=given.side, longest=given.side * 4 // 3, iters=given.iters, photos=given.photos)
        (folder / "config.py").write_text(CONFIG.format(**facts))
        (folder / "net.py").write_text(NET)
        os.environ["PODS_DATASETS"] = str(given.datasets.resolve())
        os.environ.setdefault("PODS_CACHE", temporary)
        started = time.monotonic()
        run("train", folder)
        run("test", folder)
        metrics = json.loads((folder / "results.json").read_text())["metrics"]["bbox"]
    figures = {
        "photos": given.photos,
        "objects": len(chosen["annotations"]),
        "iterations": given.iters,
        "classes": 1203,
        "bbox_AP": metrics["AP"],
        "bbox_AP50": metrics["AP50"],
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    print(json.dumps(figures, indent=2))
    if given.out:
        given.out.write_text(json.dumps(figures, indent=2) + "\n")
    return int(metrics["AP"] < 90)


if __name__ == "__main__":
    raise SystemExit(main())
