"""pods_train: train the experiment in a folder."""

from __future__ import annotations

import argparse
from typing import Any

from cvpods_ext.cli.common import add_run_flags, guarded, parser

EXAMPLES = """\
  pods_train --num-gpus 8                     train the experiment of the current folder
  pods_train --num-gpus 8 --resume            continue the last run in the same output folder
  pods_train --smoke                          10 iterations on 8 images, CPU is enough
  pods_train schedule.lr=0.01 seed=1          change any config key for this run
  pods_train --dir playground/lvis1.0/<name>  run an experiment from anywhere
then:
  pods_test --num-gpus 8                      evaluate what was trained"""


def main() -> None:
    """Entry point of pods_train."""
    flags = parser("pods_train", "Train the experiment in the current folder (config.py + net.py).", EXAMPLES)
    add_run_flags(flags)
    flags.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in the output folder")
    flags.add_argument("--weights", metavar="FILE", help="start from this file instead of model.init")
    arguments = flags.parse_intermixed_args()
    guarded("pods_train", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.engine.launch import choose_processes, launch

    overrides = list(arguments.overrides)
    if arguments.weights:
        overrides.append(f"model.init={arguments.weights!r}")
    load_experiment(arguments.dir, overrides, arguments.smoke)  # mistakes are told before processes start
    processes = choose_processes(
        arguments.num_gpus, arguments.device, arguments.num_machines, arguments.machine_rank, arguments.dist_url
    )
    launch(_work, (arguments.dir, overrides, arguments.smoke, arguments.resume), processes)


def _work(device: Any, folder: str, overrides: list[str], smoke: bool, resume: bool) -> None:
    from cvpods_ext.cli.pictures import Artist
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.engine.train import train
    from cvpods_ext.runtime import dist
    from cvpods_ext.runtime.log import setup_logging

    experiment = load_experiment(folder, overrides, smoke)
    setup_logging(experiment.output, dist.rank())
    train(experiment, device, resume, draw=Artist.of(experiment))
