"""Losses of a transformer detector in small: DINO on LVIS in a box, 40 classes, from scratch on a CPU.

    python benchmarks/dino_mini.py                          every loss with seeds 0, 1 and 2
    python benchmarks/dino_mini.py --seeds 1 --jobs 2       a first look

Draws the photos, trains and tests every experiment by the commands of a user, copies the results into the experiments'
folders and writes their comparison to benchmarks/dino_mini, without and with intervals.
"""

from __future__ import annotations

from pathlib import Path

import mini_methods

from cvpods_ext.cli.jobs import command

METHODS = ("", ".fed", ".efl", ".logit_adjustment")


def prepare(datasets: Path) -> None:
    """Draw the photos."""
    command("data", "synth", str(datasets))


if __name__ == "__main__":
    out = Path(__file__).with_suffix("")
    mini_methods.main(__doc__ or "", "dino.narrow.4scale.box.96", METHODS, prepare, out)
