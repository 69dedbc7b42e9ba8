"""pods_test: run a trained experiment over its test set and write results.json."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from cvpods_ext.cli.common import add_run_flags, guarded, parser

EXAMPLES = """\
  pods_test --num-gpus 8                      test the newest weights of the current folder
  pods_test --smoke                           test what `pods_train --smoke` made, CPU is enough
  pods_test --weights model_final.pth         test a file of yours
  pods_test test.evaluator=lvis               judge with the official (slow) evaluator
then:
  pods_compare ..                             all experiments of a playground in one table"""


def main() -> None:
    """Entry point of pods_test."""
    flags = parser("pods_test", "Test the experiment in the current folder and write results.json.", EXAMPLES)
    add_run_flags(flags)
    flags.add_argument("--weights", metavar="FILE", help="test this file instead of the newest in the output folder")
    arguments = flags.parse_intermixed_args()
    guarded("pods_test", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from cvpods_ext.cli.pictures import draw_pictures
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.engine.infer import test_settings, weights_to_test
    from cvpods_ext.engine.judge import judge
    from cvpods_ext.engine.launch import choose_processes, launch
    from cvpods_ext.report.compare import tables
    from cvpods_ext.report.runs import group
    from cvpods_ext.report.table import print_tables
    from cvpods_ext.runtime.environment import device_name
    from cvpods_ext.runtime.log import setup_logging

    experiment = load_experiment(arguments.dir, arguments.overrides, arguments.smoke)
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
    print_tables(tables(group([(path, results)])))
    playground = os.path.relpath(experiment.folder.parent)
    print(f"\nresults:  {path}\npictures: {pictures}\nnext:     pods_compare {playground}")


def _work(device: Any, folder: str, overrides: list[str], smoke: bool, weights: str, settings: dict[str, Any]) -> None:
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.engine.infer import infer
    from cvpods_ext.runtime import dist
    from cvpods_ext.runtime.log import setup_logging

    experiment = load_experiment(folder, overrides, smoke)
    setup_logging(experiment.output, dist.rank())
    infer(device, experiment, Path(weights), settings)
