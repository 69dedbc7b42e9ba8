"""pods_zoo: every method of the zoo with the small detector on synthetic photos, and one table of all of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from cvpods_ext.cli import mini_runs
from cvpods_ext.cli.common import guarded, parser
from cvpods_ext.errors import ConfigError
from cvpods_ext.runtime.log import setup_logging
from cvpods_ext.runtime.outputs import check_output_file

EXAMPLES = """\
  pods_zoo                                       every method, three seeds, hours on two CPU cores
  pods_zoo --jobs 2                              two experiments at a time, faster than one after another
  pods_zoo --device cuda                         the same on one GPU
  pods_zoo --keep --table table.md               keep results beside the experiments, run only what is missing
  pods_zoo --only fed seesaw norcal --seeds 1    some methods; what they start from is trained as well
  pods_zoo --only fed --seeds 1 schedule.iters=20  change any config key of every run"""


def main() -> None:
    """Entry point of pods_zoo."""
    flags = parser("pods_zoo", "Compare every long-tail method of playground/mini on synthetic photos.", EXAMPLES)
    flags.add_argument("--seeds", type=int, default=3, metavar="N", help="repeat with seeds 0 to N - 1 (default: 3)")
    flags.add_argument("--only", nargs="+", default=[], metavar="METHOD", help="these methods, e.g. fed seesaw")
    flags.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="experiments side by side, sharing the processors (default: 1)"
    )
    flags.add_argument("--device", choices=("cuda", "cpu"), default="cpu", help="default: cpu")
    flags.add_argument(
        "--keep", action="store_true", help="copy results into the experiments' folders; what is there is not run again"
    )
    flags.add_argument("--table", type=Path, metavar="FILE", help="write the table there, as Markdown")
    flags.add_argument("--list", action="store_true", help="show what would be run, in order, and stop")
    flags.add_argument("overrides", nargs="*", metavar="key=value", help="change config keys of every run")
    arguments = flags.parse_args()
    arguments.overrides += [name for name in arguments.only if "=" in name]  # --only takes all words behind it
    arguments.only = [name for name in arguments.only if "=" not in name]
    guarded("pods_zoo", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    started = time.monotonic()
    kept = mini_runs.beside_config if arguments.keep else None
    if kept and arguments.overrides:
        raise ConfigError("--keep is for the experiments as they are: leave it or the changed config keys out")
    check_output_file("--table", arguments.table, (".md",))
    setup_logging()
    mini = mini_runs.mini_folder()
    folders = in_order(mini, arguments.only)
    runs = mini_runs.every(folders, arguments.seeds)
    if kept:
        runs = mini_runs.missing(runs, kept)
    if arguments.list:
        print("\n".join(f"{folder.name} seed {seed}" for folder, seed in runs))
        return
    mini_runs.run(runs, arguments.device, arguments.overrides, arguments.jobs, kept)
    mini_runs.compare(folders, arguments.seeds, kept, arguments.table)
    print(f"\n{len(runs)} runs: {(time.monotonic() - started) / 60:.1f} minutes")


def in_order(mini: Path, only: Sequence[str] = ()) -> list[Path]:
    """The mini experiments, each behind what it starts from; `only` names methods, whose first stages come along.

    ConfigError for a method that does not exist.
    """
    known = {path.parent.name: path.parent for path in sorted(mini.glob(f"{mini_runs.PREFIX}*/config.py"))}
    wanted = [mini_runs.PREFIX + method for method in only] or list(known)
    if unknown := [name.removeprefix(mini_runs.PREFIX) for name in wanted if name not in known]:
        methods = ", ".join(name.removeprefix(mini_runs.PREFIX) for name in known)
        raise ConfigError(f"no method called {', '.join(unknown)} in {mini}; there are {methods}.")
    ordered: list[Path] = []
    for name in wanted:
        chain = [known[name]]
        while first := mini_runs.first_stage(chain[0]):
            chain.insert(0, mini / first)
        ordered += [folder for folder in chain if folder not in ordered]
    return ordered
