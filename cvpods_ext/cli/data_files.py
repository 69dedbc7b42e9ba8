"""pods_data label-maps and synth: data sets that are written, from another one or drawn."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.cli.common import output_console
from cvpods_ext.cli.data_sets import DATASET_HELP, dataset_of

if TYPE_CHECKING:
    from cvpods_ext.data.synthetic.write import SyntheticFiles


def add_label_maps(commands: argparse._SubParsersAction) -> None:
    """Add `pods_data label-maps`."""
    maps = commands.add_parser("label-maps", help="write the masks of a data set as label maps (PNG)")
    maps.add_argument("dataset", metavar="DATASET", help=DATASET_HELP)
    maps.add_argument("--images", default="", metavar="FOLDER", help="where the image paths of a json start")
    maps.add_argument("--out", required=True, metavar="FOLDER", help="where the PNGs and classes.txt go")
    maps.add_argument(
        "--no-background", action="store_true", help="pixels without an object are unlabelled, not a class"
    )
    maps.set_defaults(run=_label_maps)


def _label_maps(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data import catalog
    from cvpods_ext.data.annotations.annotations import load
    from cvpods_ext.data.label_maps_of_masks import write_label_maps
    from cvpods_ext.runtime.outputs import check_output_folder

    check_output_folder("--out", arguments.out)
    annotations = load(catalog.resolve(dataset_of(arguments.dataset, arguments.images), "."))
    files = write_label_maps(annotations, Path(os.path.realpath(arguments.out)), background=not arguments.no_background)
    out = output_console()
    out.print(f"wrote {len(annotations):,} label maps to {files.annotations}", markup=False)
    out.print(f"in config.py: {files}", markup=False)


def add_synth(commands: argparse._SubParsersAction) -> None:
    """Add `pods_data synth`."""
    synth = commands.add_parser("synth", help="write a small long-tailed data set with photos made of shapes")
    synth.add_argument("root", metavar="FOLDER", help="data root to write to")
    # Defaults are those of SyntheticOptions, which is only imported when it is needed.
    for flag, kind, text in (
        ("--images-train", int, "training images"),
        ("--images-val", int, "validation images"),
        ("--num-classes", int, "classes, each a shape, a colour and a texture"),
        ("--image-size", int, "longer side in pixels"),
        ("--seed", int, "the same seed gives the same files"),
        ("--spread", float, "standard deviation of ln(training images per class): 2.162 in LVIS v1, 0 is balanced"),
        ("--min-images", int, "training images of the rarest class, at least"),
        ("--val-flatness", float, "0 gives the validation set the tail of the training set, 1 equal counts"),
        ("--difficulty", float, "0 is plain, 1 is hard to tell apart"),
        ("--name", str, "part of the file names lvis_<name>_train.json ..."),
        ("--workers", int, "processes that draw"),
    ):
        synth.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=text)
    synth.add_argument("--label-maps", action="store_true", help="also write the masks as label maps (PNG)")
    synth.set_defaults(run=_synth)


def add_synth_classes(commands: argparse._SubParsersAction) -> None:
    """Add `pods_data synth-classes`."""
    synth = commands.add_parser("synth-classes", help="write a small long-tailed set with one folder per class")
    synth.add_argument("root", metavar="FOLDER", help="data root to write shapes/train and shapes/val to")
    # Defaults are those of ClassFolderOptions, which is only imported when it is needed.
    for flag, kind, text in (
        ("--num-classes", int, "classes, each a shape, a colour and a texture"),
        ("--most", int, "training images of the most frequent class"),
        ("--ratio", float, "how many times fewer the rarest class has"),
        ("--images-val", int, "validation images of every class"),
        ("--image-size", int, "side in pixels"),
        ("--seed", int, "the same seed gives the same files"),
        ("--difficulty", float, "0 is plain, 1 is hard to tell apart"),
    ):
        synth.add_argument(flag, type=kind, default=argparse.SUPPRESS, help=text)
    synth.set_defaults(run=_synth_classes)


def _synth_classes(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data.synthetic import class_folders
    from cvpods_ext.runtime.outputs import check_output_folder

    check_output_folder("FOLDER", arguments.root)
    options = {name: value for name, value in vars(arguments).items() if name not in ("command", "root", "run")}
    folder = class_folders.generate(arguments.root, **options)
    output_console().print(f"wrote {folder}: ImageFiles(images='{folder}/train')", markup=False)


def _synth(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data.synthetic import write
    from cvpods_ext.runtime.outputs import check_output_folder

    check_output_folder("FOLDER", arguments.root)
    own = ("command", "root", "run", "label_maps")
    files = write.generate(
        arguments.root, **{name: value for name, value in vars(arguments).items() if name not in own}
    )
    out = output_console()
    if arguments.label_maps:
        _write_label_maps_of(files)
    for path in (files.train, files.val, files.num_shots):
        out.print(f"wrote {path}", markup=False)
    out.print(
        f"try it: PODS_DATASETS={files.root} pods_data doctor {files.train} --images {files.root / 'coco'}",
        markup=False,
    )


def _write_label_maps_of(files: SyntheticFiles) -> None:
    """label_maps/{train,val} below the root, where the small segmentation experiments look for them."""
    from cvpods_ext.config.schema import DatasetFiles
    from cvpods_ext.data import catalog
    from cvpods_ext.data.annotations.annotations import load
    from cvpods_ext.data.label_maps_of_masks import write_label_maps

    root = Path(os.path.realpath(files.root))
    for split, json in (("train", files.train), ("val", files.val)):
        given = DatasetFiles(annotations=os.path.realpath(json), images=str(root / "coco"))
        maps = write_label_maps(load(catalog.resolve(given, ".")), root / "label_maps" / split)
        output_console().print(f"wrote {maps.annotations}", markup=False)
