"""pods_test: run a trained experiment over its test set and write results.json."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvpods_ext.cli.common import add_run_flags, add_weights_flags, guarded, parser, show_notes
from cvpods_ext.errors import ConfigError, UserError

if TYPE_CHECKING:
    from cvpods_ext.config.experiment import Experiment
    from cvpods_ext.evaluation.results import Results
    from cvpods_ext.tasks.task import Export, Predictions

EXAMPLES = """\
  pods_test --num-gpus 8                      test the newest weights of the current folder
  pods_test --smoke                           test what `pods_train --smoke` made, CPU is enough
  pods_test --weights model_final.pth         test a file of yours, or one at hf://owner/repo/file
  pods_test --published                       test what the authors published, fetched if it is not here
  pods_test test.evaluator=lvis               evaluate with the official (slow) evaluator
  pods_test --detections theirs.json          evaluate the results json of another toolkit: no weights, no images
  pods_test --detections theirs.json "test.metrics=('bbox',)"
  pods_test --export detections.json          also write what evaluation servers and other toolkits take
  pods_test --export-dataset labels.json      also write a COCO data set with scores, for FiftyOne
then:
  pods_compare ..                             all experiments of a playground in one table"""


def main() -> None:
    """Entry point of pods_test."""
    flags = parser("pods_test", "Test the experiment in the current folder and write results.json.", EXAMPLES)
    add_run_flags(flags)
    add_weights_flags(flags)
    flags.add_argument(
        "--detections",
        type=Path,
        metavar="PATH",
        help="evaluate these instead of testing: a results json or a folder of shards, whoever made it",
    )
    flags.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="write the predictions: a results .json, of classification a .csv, of segmentation a .zip",
    )
    flags.add_argument(
        "--export-dataset", type=Path, metavar="FILE", help="write them as a COCO data set with scores (FiftyOne)"
    )
    arguments = flags.parse_intermixed_args()
    guarded("pods_test", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from cvpods_ext.config.experiment import load_experiment

    experiment = load_experiment(arguments.dir, arguments.overrides, arguments.smoke)
    show_notes(experiment)
    if arguments.detections is None:
        _test(arguments, experiment)
    elif arguments.weights:
        raise ConfigError("--detections are evaluated as they are, without --weights; give one of the two")
    else:
        _evaluate_imported(arguments, experiment)


def _test(arguments: argparse.Namespace, experiment: Experiment) -> None:
    from cvpods_ext.engine.distributed.launch import choose_processes, launch
    from cvpods_ext.engine.evaluate import evaluate, families_to_test, results_file
    from cvpods_ext.engine.infer import predictions_of, test_settings, weights_to_test
    from cvpods_ext.engine.prediction_pictures import draw_pictures
    from cvpods_ext.engine.trained_classes import require_trained_classes
    from cvpods_ext.runtime.environment import device_name
    from cvpods_ext.runtime.log import setup_logging
    from cvpods_ext.runtime.outputs import check_output_file
    from cvpods_ext.runtime.run_lock import lock_of_test
    from cvpods_ext.tasks.task import find

    # Mistakes are reported before inference.
    families_to_test(experiment)
    find(experiment.config.task).check_test(experiment)
    predictions = predictions_of(experiment)
    weights = weights_to_test(experiment, arguments.weights)
    require_trained_classes(experiment, weights)
    check_output_file("the file of the results", results_file(experiment))
    exports = _exports(arguments, predictions, (weights, results_file(experiment)))
    settings = test_settings(experiment, weights)
    processes = choose_processes(
        arguments.num_gpus, arguments.device, arguments.num_machines, arguments.machine_rank, arguments.dist_url
    )
    work = (str(experiment.folder), list(arguments.overrides), arguments.smoke, str(weights), settings)
    started = time.monotonic()
    is_first = int(os.environ.get("RANK", str(arguments.machine_rank))) == 0
    with lock_of_test(experiment.output) if is_first else nullcontext():
        launch(_work, work, processes)
        if not is_first:
            return
        setup_logging(experiment.output)
        failed = _write(exports)
        devices = device_name(processes.device, processes.per_machine * processes.machines)
        results, path = evaluate(experiment, weights, settings, devices, time.monotonic() - started)
        pictures = draw_pictures(experiment, predictions)
    _show(results, path)
    print(f"pictures: {pictures}" if pictures else "pictures: none")
    print(f"next:     pods_compare {os.path.relpath(experiment.folder.parent)}")
    if failed:
        raise failed


def _work(device: Any, folder: str, overrides: list[str], smoke: bool, weights: str, settings: dict[str, Any]) -> None:
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.engine.infer import infer
    from cvpods_ext.runtime import dist
    from cvpods_ext.runtime.log import setup_logging

    experiment = load_experiment(folder, overrides, smoke)
    setup_logging(experiment.output, dist.rank())
    infer(device, experiment, Path(weights), settings)


def _evaluate_imported(arguments: argparse.Namespace, experiment: Experiment) -> None:
    from cvpods_ext.engine.evaluate import evaluate_imported, imported_folder
    from cvpods_ext.engine.infer import predictions_of
    from cvpods_ext.runtime.log import setup_logging
    from cvpods_ext.runtime.run_lock import lock_of_test

    folder = imported_folder(experiment, arguments.detections)
    predictions = predictions_of(experiment, folder)
    exports = _exports(arguments, predictions, (arguments.detections, folder / "results.json"))
    setup_logging(experiment.output)
    with lock_of_test(folder):
        results, path = evaluate_imported(experiment, arguments.detections, predictions)
        failed = _write(exports)
    _show(results, path)
    print(f"next:     pods_compare {os.path.relpath(experiment.folder)}")
    if failed:
        raise failed


def _exports(
    arguments: argparse.Namespace, predictions: Predictions, used: Sequence[Path]
) -> list[tuple[Path, Export]]:
    """Files to write and how; ConfigError for a format that the task has not, and a place that cannot be written to.

    `used` are files that the test reads or writes itself, beside those that settings name.
    """
    from cvpods_ext.config import flatten
    from cvpods_ext.runtime.outputs import check_output_file

    folder = predictions.experiment.folder
    used = [*used, *(folder / name for name in _texts(flatten(predictions.experiment.config)))]
    exports = []
    for flag, kind, file in (
        ("--export", "results", arguments.export),
        ("--export-dataset", "dataset", arguments.export_dataset),
    ):
        if file:
            exports.append((file, predictions.export(kind)))
            check_output_file(flag, file, (exports[-1][1].ending,), used)
            used = (*used, file)
    return exports


def _texts(value: Any) -> Iterator[str]:
    """Every text in a nested value, such as the paths of data sets in settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def _write(exports: list[tuple[Path, Export]]) -> UserError | None:
    """Write all that can be written; returns the first error, which must not keep results.json away."""
    failed = None
    for file, export in exports:
        try:
            print(f"{file}: {export.write(file):,} predictions")
        except UserError as error:
            failed = failed or error
    return failed


def _show(results: Results, path: Path) -> None:
    from cvpods_ext.report.compare import tables
    from cvpods_ext.report.runs import group
    from cvpods_ext.report.table import print_tables

    print_tables(tables(group([(path, results)])))
    print(f"\nresults:  {path}")
