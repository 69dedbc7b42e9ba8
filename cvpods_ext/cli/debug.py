"""pods_debug: repeat a dumped step on the CPU and name the first tensor that is not finite."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cvpods_ext.cli.common import guarded, parser

EXAMPLES = """\
  pods_debug outputs/debug/iter_0000812       the step that pods_train dumped when it stopped
  pods_debug outputs/debug/iter_0000812/batch.rank3.pth
  pods_debug FOLDER --dir ~/my_experiment     the experiment lies elsewhere now
  pods_debug FOLDER --anomaly                 also let autograd name the operation"""


def main() -> None:
    """Entry point of pods_debug."""
    flags = parser(
        "pods_debug", "Repeat a dumped training step on the CPU and name the first tensor that is not finite.", EXAMPLES
    )
    flags.add_argument("path", type=Path, metavar="FOLDER_OR_FILE", help="debug/iter_<n> in the output of a run")
    flags.add_argument("--dir", type=Path, help="experiment folder (default: the recorded one)")
    flags.add_argument("--anomaly", action="store_true", help="torch's anomaly detection: names the failing operation")
    arguments = flags.parse_args()
    guarded("pods_debug", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    import torch

    from cvpods_ext.engine.debug.replay import replay
    from cvpods_ext.engine.debug.step_dump import load_step

    step = load_step(arguments.path, arguments.dir)
    images = [image_id for batch in step.batches for image_id in batch.image_ids]
    print(f"{step.experiment.name}, iteration {step.iteration}, rank {step.rank}, images {images}")
    with torch.autograd.set_detect_anomaly(arguments.anomaly):
        finding = replay(step)
    precision = step.experiment.config.schedule.precision
    if finding is None:
        print(
            "every tensor is finite on this CPU: the cause is the device, its lower precision, or random choices that "
            "differ there. Try --deterministic, schedule.precision=fp32, or a lower schedule.lr"
        )
        sys.exit(1)
    print(finding)
    if precision != "fp32" and replay(step, full_precision=True) is None:
        print(f"in float32 everything is finite: the range or precision of {precision} is the cause")
