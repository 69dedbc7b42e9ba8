"""Long-tail methods for semantic segmentation in small: LVIS in a box as label maps, 41 classes, on a CPU.

    python benchmarks/segmentation_mini.py                          every method with seeds 0, 1 and 2
    python benchmarks/segmentation_mini.py --seeds 1 --jobs 2       a first look

Draws the images and their label maps, trains and tests every experiment by the commands of a user, copies the results
into the experiments' folders and writes their comparison to benchmarks/segmentation_mini, without and with intervals.
"""

from __future__ import annotations

from pathlib import Path

import mini_methods

from cvpods_ext.cli.jobs import command

METHODS = ("plain", "rfs.weighted", "logit_adjustment", "seesaw")


def prepare(datasets: Path) -> None:
    """Draw the photos, and write their masks as label maps."""
    command("data", "synth", str(datasets), "--label-maps")


if __name__ == "__main__":
    out = Path(__file__).with_suffix("")
    mini_methods.main(__doc__ or "", "upernet.narrow.box.96.", METHODS, prepare, out)
