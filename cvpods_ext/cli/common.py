"""What commands share: the flags of a run, and how an error reaches the user. Imports no torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from cvpods_ext.runtime.files import for_the_user
from cvpods_ext.runtime.text import WIDEST, show_error

if TYPE_CHECKING:
    from rich.console import Console

    from cvpods_ext.config.experiment import Experiment


def parser(prog: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose help ends in commands to paste."""
    return argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_run_flags(flags: argparse.ArgumentParser) -> None:
    """The flags of a command that runs an experiment."""
    flags.add_argument("--dir", default=".", help="experiment folder (default: the current one)")
    flags.add_argument("--num-gpus", type=int, metavar="N", help="processes on this machine; 0 runs on the CPU")
    flags.add_argument("--device", choices=("cuda", "cpu"), help="with cpu, --num-gpus counts CPU processes")
    flags.add_argument("--num-machines", type=int, default=1, metavar="M", help="machines of this run (default: 1)")
    flags.add_argument("--machine-rank", type=int, default=0, metavar="R", help="rank of this machine (default: 0)")
    flags.add_argument("--dist-url", default="", metavar="URL", help="tcp://HOST:PORT of machine 0")
    flags.add_argument("--smoke", action="store_true", help="shrink images, data and iterations: a minute on a CPU")
    flags.add_argument("overrides", nargs="*", metavar="key=value", help="change config keys, e.g. schedule.lr=0.01")


def add_weights_flags(flags: argparse.ArgumentParser) -> None:
    """Which weights a trained experiment is tested with; `arguments.weights` is what `weights_to_test` takes."""
    which = flags.add_mutually_exclusive_group()
    which.add_argument(
        "--weights", metavar="FILE", help="this file, or one at an address, instead of the newest in the output folder"
    )
    which.add_argument(
        "--published",
        dest="weights",
        action="store_const",
        const="published",
        help="the weights that the authors published; fetched if they are not here",
    )


def show_notes(experiment: Experiment) -> None:
    """Say once, whatever number of processes a launcher started, how the folder was read."""
    if (notes := experiment.notes()) and os.environ.get("RANK", "0") == "0":
        show_error("\n".join(notes))


def guarded(prog: str, body: Callable[[], None]) -> None:
    """Run a command; what the user can mend becomes one message and exit status 2, Ctrl-C status 130.

    That is a UserError, a full disk, and a file or folder that the system refuses.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        show_error(f"{prog}: the current folder is gone; cd to one that exists")
        sys.exit(2)
    try:
        body()
    except KeyboardInterrupt as stop:
        show_error(f"{prog}: {str(stop) or 'interrupted'}")
        sys.exit(130)
    except Exception as error:
        told = for_the_user(error)
        if told is None:
            raise
        show_error(f"{prog}: {told}")
        sys.exit(2)


def output_console(piped: int = WIDEST) -> Console:
    """Where a command shows text and tables: as wide as the terminal or COLUMNS; in a pipe `piped` characters."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=piped)
