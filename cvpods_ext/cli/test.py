"""pods_test: run a trained experiment over its test set and write results.json."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvpods_ext.cli.common import add_run_flags, guarded, parser
from cvpods_ext.errors import ConfigError

if TYPE_CHECKING:
    from cvpods_ext.config.experiment import Experiment
    from cvpods_ext.evaluation.results import Results

EXAMPLES = """\
  pods_test --num-gpus 8                      test the newest weights of the current folder
  pods_test --smoke                           test what `pods_train --smoke` made, CPU is enough
  pods_test --weights model_final.pth         test a file of yours
  pods_test test.evaluator=lvis               judge with the official (slow) evaluator
  pods_test --detections theirs.json          judge the results json of another toolkit: no weights, no images
  pods_test --detections theirs.json "test.metrics=('bbox',)"
  pods_test --export results.json             also write what evaluation servers and other toolkits take
  pods_test --export-dataset labels.json      also write a COCO data set with scores, for FiftyOne
then:
  pods_compare ..                             all experiments of a playground in one table"""


def main() -> None:
    """Entry point of pods_test."""
    flags = parser("pods_test", "Test the experiment in the current folder and write results.json.", EXAMPLES)
    add_run_flags(flags)
    flags.add_argument("--weights", metavar="FILE", help="test this file instead of the newest in the output folder")
    flags.add_argument(
        "--detections",
        type=Path,
        metavar="PATH",
        help="judge these instead of testing: a results json or a folder of shards, whoever made it",
    )
    flags.add_argument("--export", type=Path, metavar="FILE", help="write the detections as a results json")
    flags.add_argument(
        "--export-dataset", type=Path, metavar="FILE", help="write them as a COCO data set with scores (FiftyOne)"
    )
    arguments = flags.parse_intermixed_args()
    guarded("pods_test", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from cvpods_ext.config.experiment import load_experiment

    experiment = load_experiment(arguments.dir, arguments.overrides, arguments.smoke)
    if arguments.detections is None:
        _test(arguments, experiment)
    elif arguments.weights:
        raise ConfigError("--detections are judged as they are, without --weights; give one of the two")
    else:
        _judge_given(arguments, experiment)


def _test(arguments: argparse.Namespace, experiment: Experiment) -> None:
    from cvpods_ext.cli.pictures import draw_pictures
    from cvpods_ext.engine.distributed.launch import choose_processes, launch
    from cvpods_ext.engine.evaluate import judge
    from cvpods_ext.engine.infer import detections_folder, test_settings, weights_to_test
    from cvpods_ext.runtime.environment import device_name
    from cvpods_ext.runtime.log import setup_logging

    weights = weights_to_test(experiment, arguments.weights)
    settings = test_settings(experiment, weights)
    processes = choose_processes(
        arguments.num_gpus, arguments.device, arguments.num_machines, arguments.machine_rank, arguments.dist_url
    )
    work = (str(experiment.folder), list(arguments.overrides), arguments.smoke, str(weights), settings)
    started = time.monotonic()
    launch(_work, work, processes)
    if int(os.environ.get("RANK", str(arguments.machine_rank))) != 0:
        return
    setup_logging(experiment.output)
    devices = device_name(processes.device, processes.per_machine * processes.machines)
    results, path = judge(experiment, weights, settings, devices, time.monotonic() - started)
    pictures = draw_pictures(experiment)
    _export(arguments, experiment, detections_folder(experiment))
    _show(results, path)
    print(f"pictures: {pictures}\nnext:     pods_compare {os.path.relpath(experiment.folder.parent)}")


def _work(device: Any, folder: str, overrides: list[str], smoke: bool, weights: str, settings: dict[str, Any]) -> None:
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.engine.infer import infer
    from cvpods_ext.runtime import dist
    from cvpods_ext.runtime.log import setup_logging

    experiment = load_experiment(folder, overrides, smoke)
    setup_logging(experiment.output, dist.rank())
    infer(device, experiment, Path(weights), settings)


def _judge_given(arguments: argparse.Namespace, experiment: Experiment) -> None:
    from cvpods_ext.engine.evaluate import judge_given
    from cvpods_ext.runtime.log import setup_logging

    setup_logging(experiment.output)
    results, path = judge_given(experiment, arguments.detections)
    _export(arguments, experiment, path.parent / "inference" / results.dataset)
    _show(results, path)
    print(f"next:     pods_compare {os.path.relpath(experiment.folder)}")


def _export(arguments: argparse.Namespace, experiment: Experiment, shards: Path) -> None:
    from cvpods_ext.data import catalog
    from cvpods_ext.data.annotations import annotations
    from cvpods_ext.evaluation.detection import coco_json

    if arguments.export:
        print(f"{arguments.export}: {coco_json.export_json(shards, arguments.export):,} detections")
    if arguments.export_dataset:
        files = catalog.resolve(experiment.config.data.test, experiment.folder)
        loaded = annotations.load(files)
        images = [
            {
                "id": int(image_id),
                "file_name": str(loaded.image_path(position).relative_to(files.images)),
                "height": loaded.size(position)[0],
                "width": loaded.size(position)[1],
            }
            for position, image_id in enumerate(loaded.image_ids)
        ]
        categories = [{"id": category.id, "name": category.name} for category in loaded.categories]
        count = coco_json.export_dataset(shards, arguments.export_dataset, images, categories)
        print(f"{arguments.export_dataset}: {count:,} detections, file names start at {files.images}")


def _show(results: Results, path: Path) -> None:
    from cvpods_ext.report.compare import tables
    from cvpods_ext.report.runs import group
    from cvpods_ext.report.table import print_tables

    print_tables(tables(group([(path, results)])))
    print(f"\nresults:  {path}")
