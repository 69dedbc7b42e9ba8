"""Whether the whole path of segmentation can learn: a small UPerNet memorises the label maps of a few real photos.

Writes the masks of the photos as label maps, trains and tests on the same photos; a correct pipeline exceeds an mIoU of
80, one with a mistake in labels, crops, windows or sizes does not.

  python benchmarks/overfit_label_maps.py ../shared/data/datasets --out benchmarks/overfit_label_maps.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from overfit_photos import choose_photos, run

from cvpods_ext.cli.jobs import command

CONFIG = '''"""Memorise the label maps of a few photos."""

from cvpods_ext.config import override
from cvpods_ext.config.bases_segmentation import SMALL_UPERNET
from cvpods_ext.config.segmentation import LabelMapFiles

PHOTOS = LabelMapFiles(images={images!r}, annotations={labels!r}, classes={classes!r})
config = override(
    SMALL_UPERNET,
    data=dict(train=PHOTOS, test=PHOTOS, crop_side={side}, train_short={side}, train_long={long}, flip_probability=0.0),
    model=dict(test_short={side}, test_long={long}, test_stride={stride}),
    schedule=dict(iters={iters}, batch_size={photos}, images_per_device={photos}),
    log_every=50, checkpoint_every=10_000, picture_every=0,
)
'''
NET = '''"""A narrow UPerNet; norms over the batch."""

from cvpods_ext.config.segmentation import SegmentationConfig
from cvpods_ext.data.segmentation import num_classes
from cvpods_ext.modeling.backbones.resnet import ResNet, Stage
from cvpods_ext.modeling.segmentation.build import upernet


def build_model(cfg: SegmentationConfig):
    """Build the segmentor that config.py trains."""
    stages = (Stage(1, 32, 32), Stage(1, 64, 64), Stage(1, 96, 96), Stage(1, 128, 128))
    backbone = ResNet(stages, stem_channels=16, bottleneck=False, norm="BN", freeze_at=0)
    classes = num_classes(cfg.data, cfg.folder)
    return upernet(cfg, backbone=backbone, in_channels=(32, 64, 96, 128), num_classes=classes)
'''


def main() -> int:
    """Train, test, print and write the numbers; exit status 1 below an mIoU of 80."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("datasets", type=Path, help="folder with coco/ and its annotations")
    parser.add_argument("--photos", type=int, default=4, help="how many (default: 4)")
    parser.add_argument("--iters", type=int, default=1200, help="training iterations (default: 1200)")
    parser.add_argument("--side", type=int, default=224, help="pixels of a crop (default: 224)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers there as JSON")
    given = parser.parse_args()
    content = json.loads((given.datasets / "coco" / "annotations" / "instances_train2017.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        numbers = overfit(Path(folder), given, choose_photos(content, given.photos))
    print(json.dumps(numbers, indent=2))
    if given.out:
        given.out.write_text(json.dumps(numbers, indent=2) + "\n")
    return 0 if numbers["mIoU"] > 80 else 1


def overfit(folder: Path, given: argparse.Namespace, content: dict) -> dict:
    """Numbers of one run in `folder`."""
    photos = folder / "photos"
    photos.mkdir()
    for image in content["images"]:
        source = given.datasets / "coco" / "train2017" / image["file_name"]
        (photos / image["file_name"]).symlink_to(os.path.realpath(source))
    (folder / "photos.json").write_text(json.dumps(content))
    labels = folder / "labels"
    command("data", "label-maps", str(folder / "photos.json"), "--images", str(photos), "--out", str(labels))
    experiment = folder / "overfit"
    experiment.mkdir()
    sizes = {"side": given.side, "long": 4 * given.side, "stride": given.side * 2 // 3}
    sizes |= {"iters": given.iters, "photos": given.photos}
    places = {"images": str(photos), "labels": str(labels), "classes": str(labels / "classes.txt")}
    (experiment / "config.py").write_text(CONFIG.format(**sizes, **places))
    (experiment / "net.py").write_text(NET)
    started = time.monotonic()
    run("train", experiment)
    run("test", experiment)
    results = json.loads((experiment / "results.json").read_text())
    metrics = results["metrics"]["sem_seg"]
    return {
        "photos": len(content["images"]),
        "iterations": given.iters,
        "minutes": round((time.monotonic() - started) / 60, 1),
        **{name: round(metrics[name], 2) for name in ("mIoU", "mAcc", "aAcc")},
    }


if __name__ == "__main__":
    raise SystemExit(main())
