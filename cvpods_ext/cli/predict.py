"""pods_predict: what a trained experiment finds in pictures."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.cli.common import add_weights_flags, guarded, output_console, parser, show_notes
from cvpods_ext.errors import ConfigError, DataError

if TYPE_CHECKING:
    from cvpods_ext.config.experiment import Experiment
    from cvpods_ext.engine.predict_files import Found, Outputs

EXAMPLES = """\
  pods_predict photo.jpg                              draw what the newest weights of this folder find
  pods_predict photos --out found                     a folder of pictures, and all below it
  pods_predict "photos/*.png" --threshold 0.5         a pattern; draw only what scores at least 0.5
  pods_predict photos --json found.json --csv found.csv --no-pictures
  pods_predict photo.jpg --dir mask_rcnn.res50.fpn.lvisv1.multiscale.1x --weights model_final.pth
  pods_predict photo.jpg --dir cascade_mask_rcnn.eva02_B.sfp.lvisv1.lsj1024.rfs.fed.50k --published
  pods_predict photos --num-gpus 8 model.score_threshold=0.1"""
SHOWN = 12  # pictures that are told of one by one


def main() -> None:
    """Entry point of pods_predict."""
    flags = parser("pods_predict", "Show what the experiment in the current folder finds in pictures.", EXAMPLES)
    flags.add_argument(
        "pictures", nargs="+", metavar="PICTURE", help="image, folder or pattern in quotes; key=value changes a setting"
    )
    flags.add_argument("--dir", default=".", help="experiment folder or name in the playground (default: this folder)")
    add_weights_flags(flags)
    flags.add_argument("--out", type=Path, metavar="FOLDER", help="pictures go there (default: outputs/predicted)")
    flags.add_argument("--no-pictures", action="store_true", help="draw none")
    flags.add_argument("--json", type=Path, metavar="FILE", help="what is found, of objects as COCO results")
    flags.add_argument("--csv", type=Path, metavar="FILE", help="the same as a table")
    flags.add_argument("--threshold", type=float, metavar="SCORE", help="draw what scores at least this (default: 0.3)")
    flags.add_argument("--num-gpus", type=int, metavar="N", help="processes; 0 runs on the CPU")
    flags.add_argument("--device", choices=("cuda", "cpu"), help="with cpu, --num-gpus counts CPU processes")
    arguments = flags.parse_intermixed_args()
    guarded("pods_predict", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from cvpods_ext.config import playground
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.data import photos
    from cvpods_ext.engine.distributed.launch import choose_processes, launch
    from cvpods_ext.engine.infer import weights_to_test
    from cvpods_ext.engine.predict_files import merge, picture_names, predict_share
    from cvpods_ext.tasks.task import find

    given, overrides = _separated(arguments.pictures)
    experiment = load_experiment(playground.find(arguments.dir), overrides)
    show_notes(experiment)
    files = photos.find(given)
    weights = weights_to_test(experiment, arguments.weights)
    outputs = _outputs(arguments, experiment, [*files, weights])
    if outputs.pictures:
        picture_names(files, outputs.pictures)
    find(experiment.config.task).describe(experiment)
    processes = choose_processes(arguments.num_gpus, arguments.device)
    with tempfile.TemporaryDirectory(prefix="pods_predict-") as parts:
        work = (str(experiment.folder), overrides, str(weights), list(map(str, files)), outputs, parts)
        launch(predict_share, work, processes)
        found = merge(Path(parts), outputs, SHOWN)
    _show(found, outputs)
    if found.broken:
        raise DataError(f"{len(found.broken)} of {len(files)} pictures cannot be read, the first: {found.broken[0]}")


def _separated(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Pictures and settings: a setting has a = and is no file."""
    settings = [one for one in arguments if "=" in one and not os.path.lexists(one)]
    pictures = [one for one in arguments if one not in settings]
    if not pictures:
        raise ConfigError("no picture is given: name an image, a folder of images, or a pattern in quotes")
    return pictures, settings


def _outputs(arguments: argparse.Namespace, experiment: Experiment, used: list[Path]) -> Outputs:
    """Places that can be written to; ConfigError otherwise."""
    from cvpods_ext.engine.predict_files import Outputs, default_folder
    from cvpods_ext.runtime.outputs import check_output_file, check_output_folder

    pictures = None if arguments.no_pictures else arguments.out or default_folder(experiment)
    check_output_folder("--out", pictures)
    check_output_file("--json", arguments.json, reads=used)
    check_output_file("--csv", arguments.csv, reads=(arguments.json, *used))
    if arguments.no_pictures and not arguments.json and not arguments.csv:
        raise ConfigError("--no-pictures leaves nothing to write; add --json FILE or --csv FILE")
    places = (None if one is None else Path(os.path.abspath(one)) for one in (pictures, arguments.json, arguments.csv))
    return Outputs(*places, score_threshold=arguments.threshold)


def _show(found: Found, outputs: Outputs) -> None:
    from cvpods_ext.runtime.text import printable_lines

    console = output_console()
    for source, summary in found.shown:
        console.print(printable_lines(f"{source}: {summary}"), markup=False, highlight=False)
    if found.pictures > len(found.shown):
        console.print(f"... and {found.pictures - len(found.shown):,} more")
    for title, place in (("pictures:", outputs.pictures), ("json:", outputs.json), ("csv:", outputs.csv)):
        if place:
            console.print(f"{title:<9} {place}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
