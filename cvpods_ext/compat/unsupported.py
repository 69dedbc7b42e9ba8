"""What an old folder imports and is not here: one message with the import, the nearest folder, and the way on."""

from __future__ import annotations

import traceback
from pathlib import Path

from cvpods_ext.errors import ConfigError

# By a word in what was imported, or in the folder's name: the folder of ours to look at.
_NEAREST = (
    ("cascade", "playground/lvis1.0/cascade_mask_rcnn.res50.fpn.lvisv1.multiscale.1x"),
    ("detr", "playground/coco/dino.res50.4scale.coco.multiscale.12ep"),
    ("dino", "playground/coco/dino.res50.4scale.coco.multiscale.12ep"),
    ("retina", "playground/coco/dino.res50.4scale.coco.multiscale.12ep, another detector without regions"),
    ("fcos", "playground/coco/dino.res50.4scale.coco.multiscale.12ep, another detector without regions"),
    ("yolo", "playground/coco/dino.res50.4scale.coco.multiscale.12ep, another detector without regions"),
    ("imagenet", "playground/imagenet/eva02-tiny-p14_in21k-pre_3rdparty_in1k, image classification"),
    ("semantic", "playground/ade20k, semantic segmentation"),
    ("segment", "playground/ade20k, semantic segmentation"),
    ("faster", "playground/coco/faster_rcnn.res50.fpn.coco.multiscale.1x"),
    ("", "playground/lvis1.0/mask_rcnn.res50.fpn.lvisv1.multiscale.1x"),
)


def explain(error: ImportError, folder: Path) -> ConfigError:
    """The message for an import of `folder` that failed."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(folder)
    ]
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(folder)
    line = (frames[-1].line or "").strip() if frames else str(error)
    asked = f"{line} {error.name or ''}".lower()
    if "cvpods" not in asked:
        return ConfigError(f"{where}: {line}: {error}. Install it, or put it into {folder}")
    return ConfigError(
        f"{where}: `{line}` asks for a part of cvpods that is not here ({error}).\n{way_on(asked, folder)}"
    )


def way_on(asked: str, folder: Path) -> str:
    """The nearest folder of ours and how an experiment moves there."""
    text = f"{asked} {folder.name}".lower()
    nearest = next(place for word, place in _NEAREST if word in text)
    return (
        f"The nearest folder of this package is {nearest}.\n"
        "To move: copy it, write what differs into its config.py, build your network in its net.py; "
        "docs/old_folders.md lists what old folders may import"
    )
