"""Long-tail methods for image classification in small: shapes of 20 classes, 300 to 3 training images, on a CPU.

    python benchmarks/classification_mini.py                          every method with seeds 0, 1 and 2
    python benchmarks/classification_mini.py --seeds 1 --jobs 2       a first look

Draws the images, trains and tests every experiment by the commands of a user, copies the results into the experiments'
folders and writes their comparison to benchmarks/classification_mini, without and with intervals.
"""

from __future__ import annotations

from pathlib import Path

import mini_methods

from cvpods_ext.cli.jobs import command

METHODS = ("plain", "rfs", "cos_norm", "cos_norm.disalign", "balanced_softmax", "logit_adjustment")


def prepare(datasets: Path) -> None:
    """Draw the shapes."""
    command("data", "synth-classes", str(datasets))


if __name__ == "__main__":
    out = Path(__file__).with_suffix("")
    mini_methods.main(__doc__ or "", "resnet.narrow.shapes.48.", METHODS, prepare, out)
