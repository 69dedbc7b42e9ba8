"""Whether the whole path can learn: a small network memorises a few real photos with all 1,203 LVIS classes.

Trains and tests on the same photos; a correct pipeline exceeds a mask AP of 60, one with a mistake in coordinates,
labels, masks or post-processing does not.

  python benchmarks/overfit_photos.py ../shared/data/datasets --out benchmarks/overfit_photos.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = '''"""Memorise a few photos."""

from cvpods_ext.config import DatasetFiles, override
from cvpods_ext.config.bases import MINI

PHOTOS = DatasetFiles(annotations="{json}", images="coco")
config = override(
    MINI,
    data=dict(
        train=PHOTOS, test=PHOTOS, flip_probability=0.0,
        train_sizes=({side},), train_max_size={longest}, test_size={side}, test_max_size={longest},
    ),
    model=dict(
        init="none", anchor_sizes=(16, 32, 64, 128, 256), anchors_per_image=256, proposals_per_level=(300, 200),
        proposals=(200, 100), rois_per_image=64,
    ),
    schedule=dict(iters={iters}, warmup_iters=50, batch_size=4, images_per_device=4, lr=0.02),
    log_every=50, checkpoint_every=1000, picture_every=0,
)
'''
NET = '''"""A narrow Mask R-CNN with anchors for photos; group norm, since four photos are no batch to measure."""

from cvpods_ext.config.detection import DetectionConfig
from cvpods_ext.data.catalog import num_classes
from cvpods_ext.modeling.detection.build import mask_rcnn_fpn
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.necks.fpn import FPN
from cvpods_ext.modeling.detection.rcnn import RCNN


def build_model(cfg: DetectionConfig) -> RCNN:
    """Build the detector that config.py trains."""
    stages = (Stage(1, 32, 32), Stage(1, 64, 64), Stage(1, 96, 96), Stage(1, 128, 128))
    return mask_rcnn_fpn(
        cfg.model,
        num_classes=num_classes(cfg.data, cfg.folder),
        backbone=FPN(ResNet(stages, stem_channels=32, bottleneck=False, norm="GN", freeze_at=0), channels=64),
    )
'''


def choose_photos(content: dict, count: int) -> dict:
    """The `count` photos whose objects are largest on average; all categories stay."""
    areas: dict[int, list[float]] = {}
    for annotation in content["annotations"]:
        areas.setdefault(annotation["image_id"], []).append(annotation["area"])
    by_size = sorted(areas, key=lambda image_id: -sum(areas[image_id]) / len(areas[image_id]))
    chosen = set([i for i in by_size if len(areas[i]) >= 2][:count])
    return {
        **content,
        "images": [image for image in content["images"] if image["id"] in chosen],
        "annotations": [a for a in content["annotations"] if a["image_id"] in chosen],
    }


def run(command: str, folder: Path) -> None:
    """One of our commands, as a user runs it."""
    code = f"from cvpods_ext.cli.{command} import main; main()"
    subprocess.run([sys.executable, "-c", code, "--dir", str(folder), "--device", "cpu"], check=True)


def main() -> None:
    """Prepare the folder, train, test, report."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("root", type=Path, help="data root with coco/ and lvis/lvis_v1_train.json")
    flags.add_argument("--photos", type=int, default=6)
    flags.add_argument("--iters", type=int, default=600)
    flags.add_argument("--side", type=int, default=192, help="shortest edge in pixels")
    flags.add_argument("--out", type=Path, help="write the figures there as JSON")
    arguments = flags.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "overfit"
        folder.mkdir()
        subset = Path(temporary) / "photos.json"
        content = json.loads((arguments.root / "lvis" / "lvis_v1_train.json").read_text())
        subset.write_text(json.dumps(choose_photos(content, arguments.photos)))
        longest = arguments.side * 4 // 3
        filled = CONFIG.format(json=subset, side=arguments.side, longest=longest, iters=arguments.iters)
        (folder / "config.py").write_text(filled)
        (folder / "net.py").write_text(NET)
        os.environ["PODS_DATASETS"] = str(arguments.root.resolve())
        os.environ.setdefault("PODS_CACHE", temporary)
        started = time.monotonic()
        run("train", folder)
        run("test", folder)
        metrics = json.loads((folder / "results.json").read_text())["metrics"]
    figures = {
        "photos": arguments.photos,
        "iterations": arguments.iters,
        "classes": 1203,
        "bbox_AP": metrics["bbox"]["AP"],
        "segm_AP": metrics["segm"]["AP"],
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    print(json.dumps(figures, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
