"""pods_new: an experiment folder for a data set of one's own."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvpods_ext.cli.common import guarded, output_console, parser
from cvpods_ext.errors import ConfigError

if TYPE_CHECKING:
    from cvpods_ext.config.detection import DetectionConfig
    from cvpods_ext.config.experiment import Experiment
    from cvpods_ext.data.own_recipe import Choice

WITH_MASKS, BOXES_ONLY = "mask_rcnn.res50.fpn.coco.multiscale.1x", "faster_rcnn.res50.fpn.coco.multiscale.1x"
SHARE = 0.2

EXAMPLES = f"""\
  pods_new birds                                        asks for what it needs
  pods_new birds --train train.json --val val.json --images photos
  pods_new birds --train all.json --images photos       a fifth of the images is split off for testing
  pods_new birds --train train.json --val val.json --images photos \\
      --from mask_rcnn.res50.fpn.lvisv1.multiscale.seesaw.1x --weights model_final.pth
  pods_new birds --train train.json --val val.json --images photos --batch-size 4
then:
  cd birds; pods_train --smoke; pods_train; pods_test
Without --from it is {WITH_MASKS}, or faster_rcnn for annotations without masks;
`python -c "import cvpods_ext; print(cvpods_ext.list_models('*'))"` lists all names."""


def main() -> None:
    """Entry point of pods_new."""
    flags = parser(
        "pods_new", "Write an experiment folder for a data set of your own, in COCO or LVIS layout.", EXAMPLES
    )
    flags.add_argument("folder", type=Path, metavar="FOLDER", help="folder to write; must not exist")
    flags.add_argument("--train", type=Path, metavar="JSON", help="annotations to train on")
    flags.add_argument(
        "--val", type=Path, metavar="JSON", help="annotations to test on (default: split off from --train)"
    )
    flags.add_argument("--images", type=Path, metavar="DIR", help="folder that the file names of the json start from")
    flags.add_argument("--val-images", type=Path, metavar="DIR", help="the same for --val (default: --images)")
    flags.add_argument("--split", type=float, default=SHARE, help=f"share to test on without --val (default: {SHARE})")
    flags.add_argument(
        "--from", dest="source", metavar="NAME", help="experiment of the playground whose method is used"
    )
    flags.add_argument("--weights", metavar="FILE", help="start from these instead of those of the experiment")
    flags.add_argument("--batch-size", type=int, default=0, metavar="N", help="images of a step; the rate follows")
    arguments = flags.parse_args()
    guarded("pods_new", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    new = Path(os.path.realpath(arguments.folder))
    if new.exists():
        raise ConfigError(f"{new} is there already; give the name of a new folder")
    if arguments.batch_size < 0:
        raise ConfigError(f"--batch-size {arguments.batch_size}: a step has at least one image")
    train = _asked(arguments.train, "--train", "annotations to train on (.json)")
    images = _asked(arguments.images, "--images", "folder of the images")
    for path, is_there, kind in ((train, train.is_file(), "a json file"), (images, images.is_dir(), "a folder")):
        if not is_there:
            raise ConfigError(f"{path} is not there; give {kind}")
    new.mkdir(parents=True)
    try:
        lines = _fill(new, arguments, train, images)
    except BaseException:
        shutil.rmtree(new)
        raise
    console = output_console()
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _asked(given: Path | None, flag: str, question: str) -> Path:
    """What was given, else what the user types; ConfigError where nobody can be asked."""
    if given is not None:
        return Path(given).expanduser()
    if not sys.stdin.isatty():
        raise ConfigError(f"{flag} is missing: {question}")
    from rich.prompt import Prompt

    return Path(Prompt.ask(question)).expanduser()


def _fill(new: Path, arguments: argparse.Namespace, train: Path, images: Path) -> list[str]:
    """Write everything into the folder `new`; returns what to say of it."""
    from cvpods_ext.config import playground
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.config.override import override
    from cvpods_ext.config.schema import DatasetFiles
    from cvpods_ext.config.source import config_source
    from cvpods_ext.data import catalog, own_recipe
    from cvpods_ext.data.detection_loader import load_checked

    lines, val = [], arguments.val
    if val is None:
        val = new / "val.json"
        counts = _split(train, new, arguments.split)
        lines.append(f"split:    {counts[0]:,} images to train on, {counts[1]:,} to test on (train.json, val.json)")
        train = new / "train.json"
    files = {
        split: DatasetFiles(annotations=_place(json, new), images=_place(folder, new))
        for split, json, folder in (("train", train, images), ("test", val, arguments.val_images or images))
    }
    annotations = catalog.load(files["train"], new)
    source = playground.find(arguments.source or (WITH_MASKS if annotations.facts["has_masks"] else BOXES_ONLY))
    config = override(_detection(load_experiment(source)), data=files)
    names = [category.name for category in annotations.categories]
    lines.append(f"classes:  {len(names):,} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})")
    config = dataclasses.replace(config, folder=str(new))
    for name, dataset in files.items():
        found = load_checked(config.data, dataset, new)  # what is wrong with the data is told now
        lines.append(f"{name + ':':<9} {len(found):,} images, {found.facts['annotations']:,} annotations")
    chosen = own_recipe.choices(config, annotations, arguments.batch_size)
    if arguments.weights:
        chosen.insert(0, own_recipe.Choice("model.init", _weights(arguments.weights), "as asked for"))
    config = override(config, **_sections(chosen))  # at once, since some fit each other only
    heading = f"{new.name}: the method of {source.name} on own data.\n\nRun:  pods_train; pods_test"
    (new / "config.py").write_text(config_source(heading, config), encoding="utf-8")
    for file in source.glob("*.py"):
        if file.name != "config.py":
            shutil.copy(file, new / file.name)
    load_experiment(new)
    lines.append(f"method:   {source.name}, with its weights and normalisation ({config.model.init})")
    lines += _table(chosen)
    lines.append(f"next:     cd {os.path.relpath(new)}; pods_train --smoke")
    return lines


def _split(train: Path, new: Path, share: float) -> tuple[int, int]:
    from cvpods_ext.data.split import split

    return split(train, new / "train.json", new / "val.json", share)


def _place(path: Path, new: Path) -> str:
    """As config.py names it: from the data root where it lies below it, else in full."""
    from cvpods_ext.data import catalog
    from cvpods_ext.errors import DataError

    full = Path(os.path.realpath(path))
    try:
        root = Path(os.path.realpath(catalog.data_root(new)))
    except DataError:
        return str(full)
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else str(full)


def _detection(experiment: Experiment) -> DetectionConfig:
    from cvpods_ext.config.detection import DetectionConfig

    config = experiment.config
    if not isinstance(config, DetectionConfig):
        raise ConfigError(f"--from {experiment.name} is no detector; annotations of objects need one")
    if config.model.init.startswith("experiment:") or config.schedule.fit != "gradient":
        raise ConfigError(
            f"--from {experiment.name} starts from a trained {config.model.init.removeprefix('experiment:')}: make a "
            "folder from that one first, train it, and copy this one beside it"
        )
    return config


def _weights(given: str) -> str:
    """A file in full, another address as it is."""
    path = Path(given).expanduser()
    return str(Path(os.path.realpath(path))) if path.is_file() else given


def _sections(chosen: list[Choice]) -> dict[str, Any]:
    """As `override` takes them."""
    found: dict[str, Any] = {}
    for choice in chosen:
        section, _, name = choice.key.rpartition(".")
        (found.setdefault(section, {}) if section else found)[name] = choice.value
    return found


def _table(chosen: list[Choice]) -> list[str]:
    """A line for every setting, and one for its reason."""
    lines = ["chosen:   what differs from the method's own settings"]
    for choice in chosen:
        lines += [f"  {choice.key} = {choice.value!r}", f"      {choice.why}"]
    return lines


if __name__ == "__main__":
    main()
