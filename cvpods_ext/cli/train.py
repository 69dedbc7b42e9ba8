"""pods_train: train the experiment in a folder."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cvpods_ext.cli.common import add_run_flags, guarded, parser, show_notes

if TYPE_CHECKING:
    from cvpods_ext.config.run_options import RunOptions

EXAMPLES = """\
  pods_train --num-gpus 8                     train the experiment of the current folder
  pods_train --num-gpus 8 --resume            continue the last run in the same output folder
  pods_train --smoke                          10 iterations on 8 images, CPU is enough
  pods_train schedule.lr=0.01 seed=1          change any config key for this run
  pods_train test.every=5000 keep_best=segm/APr
                                              test during training, keep the checkpoint that is best by it
  pods_train --num-gpus 4 --scale-batch 8     half the batch: rate, iterations and periods follow
  pods_train --num-gpus 8 --max-restarts 3    after a crash continue from the last checkpoint by itself
  pods_train --dir playground/lvis1.0/<name>  run an experiment from anywhere
then:
  pods_test --num-gpus 8                      evaluate what was trained"""


def main() -> None:
    """Entry point of pods_train."""
    flags = parser("pods_train", "Train the experiment in the current folder (config.py + net.py).", EXAMPLES)
    add_run_flags(flags)
    flags.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in the output folder")
    flags.add_argument("--weights", metavar="FILE", help="start from this file or address, not model.init")
    flags.add_argument(
        "--max-restarts",
        type=int,
        default=0,
        metavar="N",
        help="after a crash continue by itself, N times (default: 0)",
    )
    flags.add_argument(
        "--scale-batch", type=int, metavar="IMAGES", help="another batch size; rate, iterations and periods follow"
    )
    flags.add_argument("--wandb", default="", metavar="PROJECT", help="also log to this Weights & Biases project")
    flags.add_argument("--deterministic", action="store_true", help="ask torch for algorithms that repeat bit for bit")
    flags.add_argument("--anomaly", action="store_true", help="autograd names the operation behind a NaN (slow)")
    flags.add_argument(
        "--profile", action="store_true", help="write a Chrome trace of a few steps to the output folder"
    )
    flags.add_argument("--hang-minutes", type=float, default=15.0, metavar="M", help="dump stacks after M idle minutes")
    arguments = flags.parse_intermixed_args()
    guarded("pods_train", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.config.run_options import RunOptions
    from cvpods_ext.config.schema import smoke_batch
    from cvpods_ext.engine.distributed.launch import choose_processes, launch, was_restarted, world_size
    from cvpods_ext.engine.logging.writers import import_wandb
    from cvpods_ext.runtime.log import setup_logging

    overrides = list(arguments.overrides)
    if arguments.weights:
        overrides.append(f"model.init={arguments.weights!r}")
    if arguments.scale_batch is not None:
        overrides = _scaled(arguments, overrides)
    processes = choose_processes(
        arguments.num_gpus, arguments.device, arguments.num_machines, arguments.machine_rank, arguments.dist_url
    )
    if arguments.smoke:
        overrides = [*smoke_batch(world_size(processes)), *overrides]
    # Before processes start, so that mistakes are reported once.
    experiment = load_experiment(arguments.dir, overrides, arguments.smoke)
    show_notes(experiment)
    experiment.config.schedule.accumulation(world_size(processes))
    if arguments.wandb:
        import_wandb()
    setup_logging()
    if arguments.resume and os.environ.get("RANK", str(arguments.machine_rank)) == "0":
        experiment.take_over_earlier_run()
    options = RunOptions(
        resume=arguments.resume,
        restarted=was_restarted(),
        anomaly=arguments.anomaly,
        profile=arguments.profile,
        deterministic=arguments.deterministic,
        hang_minutes=arguments.hang_minutes,
        wandb=arguments.wandb,
    )
    work = (arguments.dir, overrides, arguments.smoke)
    again = (*work, replace(options, restarted=True))
    launch(_work, (*work, options), processes, arguments.max_restarts, again)


def _scaled(arguments: argparse.Namespace, overrides: list[str]) -> list[str]:
    """Overrides for another batch size before the user's own, which win; what changes is shown as a table."""
    from rich.table import Table

    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.config.scale_batch import scaled
    from cvpods_ext.runtime.progress import console

    written = {text.partition("=")[0] for text in overrides}
    rows = scaled(load_experiment(arguments.dir, (), arguments.smoke).config, arguments.scale_batch)
    table = Table("setting", "before", "after", title=f"scaled to batches of {arguments.scale_batch} images")
    for key, before, after in rows:
        table.add_row(key, f"{before:.6g}", f"{after:.6g}" if key not in written else "as given")
    console().print(table)
    return [f"{key}={after!r}" for key, _, after in rows] + overrides


def _work(device: Any, folder: str, overrides: list[str], smoke: bool, options: RunOptions) -> None:
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.engine.fit_statistics import fit_statistics
    from cvpods_ext.engine.train import train
    from cvpods_ext.errors import ConfigError
    from cvpods_ext.runtime import dist
    from cvpods_ext.runtime.log import setup_logging

    experiment = load_experiment(folder, overrides, smoke)
    setup_logging(experiment.output, dist.rank())
    fit = experiment.config.schedule.fit
    if fit == "none":
        raise ConfigError(
            f"{experiment.name} trains nothing (schedule.fit='none'): test it by pods_test --weights FILE with the "
            f"weights of {experiment.config.model.init}"
        )
    if fit == "statistics":
        fit_statistics(experiment, device, options.resume)
    else:
        train(experiment, device, options)


if __name__ == "__main__":  # torchrun -m cvpods_ext.cli.train
    main()
