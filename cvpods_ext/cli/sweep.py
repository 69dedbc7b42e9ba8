"""pods_sweep: train and test an experiment with several values of its settings, and compare."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.cli.common import guarded, parser
from cvpods_ext.errors import ConfigError

if TYPE_CHECKING:
    from cvpods_ext.cli.jobs import Job
    from cvpods_ext.config.experiment import Experiment

EXAMPLES = """\
  pods_sweep schedule.lr=0.005,0.01,0.02             three runs, then their table and a chart
  pods_sweep schedule.lr=0.01,0.02 --seeds 3         each with the seeds 0, 1 and 2
  pods_sweep data.sampler=uniform,repeat_factor schedule.iters=9000
                                                     settings with one value hold for all runs
  pods_sweep "schedule.decay=Cosine(),MultiStep(drops=(2/3, 8/9))" model.score_threshold=0.0001,0.05
  pods_sweep schedule.lr=0.01,0.02 --jobs 2 --num-gpus 4
Called again it goes on where it stopped: what is done is kept, a run that was cut short is continued."""


def main() -> None:
    """Entry point of pods_sweep."""
    flags = parser("pods_sweep", "Train and test an experiment with several values of its settings.", EXAMPLES)
    flags.add_argument("settings", nargs="+", metavar="key=a,b,...", help="settings with their values")
    flags.add_argument("--dir", default=".", help="experiment folder (default: the current one)")
    flags.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N - 1 for each (default: 1)")
    flags.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side (default: 1)")
    flags.add_argument("--num-gpus", type=int, metavar="N", help="processes of each run; 0 runs on the CPU")
    flags.add_argument("--device", choices=("cuda", "cpu"), help="with cpu, --num-gpus counts CPU processes")
    arguments = flags.parse_args()
    guarded("pods_sweep", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from cvpods_ext.cli import jobs
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.config.sweep import combinations, parse
    from cvpods_ext.report.comparison import compare
    from cvpods_ext.report.sweep_page import page
    from cvpods_ext.report.table import print_tables
    from cvpods_ext.runtime.files import write_text

    if arguments.seeds < 1 or arguments.jobs < 1:
        raise ConfigError("--seeds and --jobs must be at least 1")
    swept = parse(arguments.settings)
    if taken := [one.key for one in swept if one.key in ("seed", "output")]:
        raise ConfigError(f"{taken[0]} is chosen by the sweep; --seeds says how many seeds")
    chosen = combinations(swept)
    folder = load_experiment(arguments.dir).output / "sweep"
    seeds = range(arguments.seeds)
    several = [i for i, one in enumerate(swept) if len(one.values) > 1]
    experiments = [
        _experiment(arguments, overrides, [overrides[i] for i in several], seed, folder)
        for overrides in chosen
        for seed in seeds
    ]
    _check(experiments)
    missing = [one for one in experiments if not _is_done(one)]
    done = len(experiments) - len(missing)
    print(f"{len(experiments)} runs, {done} of them done; results below {os.path.relpath(folder)}")
    jobs.run([_job(one, arguments) for one in missing], arguments.jobs, lambda job: None)
    results = [one.output for one in experiments]
    comparison = compare(*results)
    print_tables(comparison.tables)
    write_text(folder / "table.md", comparison.to_markdown())
    write_text(folder / "sweep.html", page(experiments[0].name, comparison.tables, swept, results))
    print(f"table:  {os.path.relpath(folder / 'table.md')}\npage:   {os.path.relpath(folder / 'sweep.html')}")


def _experiment(
    arguments: argparse.Namespace, overrides: Sequence[str], varied: Sequence[str], seed: int, folder: Path
) -> Experiment:
    """The experiment of one run, in a folder called by what is `varied`; ConfigError for one that does not fit."""
    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.config.sweep import folder_name

    output = folder / folder_name(varied or overrides) / f"seed{seed}"
    return load_experiment(arguments.dir, [*overrides, f"seed={seed}", f"output={str(output)!r}"])


def _check(experiments: Sequence[Experiment]) -> None:
    """Everything cheap that could fail in a run, before the first one starts."""
    from cvpods_ext.engine.train import check

    for experiment in experiments:
        if experiment.config.schedule.fit == "none":
            raise ConfigError(f"{experiment.name} trains nothing (schedule.fit='none'), so there is nothing to sweep")
        if experiment.config.seed == 0:
            check(experiment)


def _is_done(experiment: Experiment) -> bool:
    """Whether the run was tested with these settings, sources and data."""
    from cvpods_ext.config.experiment import sources_sha256
    from cvpods_ext.config.override import fingerprint
    from cvpods_ext.evaluation.results import Results
    from cvpods_ext.tasks.task import find

    path = experiment.output / "results.json"
    if not path.is_file():
        return False
    made = Results.read(path).provenance
    return (
        made.get("config_sha256") == fingerprint(experiment.config)
        and made.get("sources_sha256") == sources_sha256(experiment.folder)
        and made.get("data_sha256") == find(experiment.config.task).test_set_sha256(experiment)
    )


def _job(experiment: Experiment, arguments: argparse.Namespace) -> Job:
    from cvpods_ext.cli.jobs import Job
    from cvpods_ext.engine.resume_changes import is_same_run

    where = ["--dir", str(experiment.folder)]
    for flag in ("device", "num_gpus"):
        if (value := getattr(arguments, flag)) is not None:
            where += [f"--{flag.replace('_', '-')}", str(value)]
    resume = ["--resume"] if is_same_run(experiment) else []  # of another config the run starts over
    train, test = (*where, *resume, *experiment.overrides), (*where, *experiment.overrides)
    return Job(" ".join(experiment.overrides[:-1]), experiment.output, (("train", *train), ("test", *test)))


if __name__ == "__main__":
    main()
