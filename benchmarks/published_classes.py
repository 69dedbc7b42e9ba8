"""Published IoUs of every class of ADE20K, beside how often a class occurs: docs/published_ade20k.md, from
cvpods_ext/report/published_ade20k_classes.csv.

python benchmarks/published_classes.py             write the page from cvpods_ext/report/published_ade20k_classes.csv
python benchmarks/published_classes.py --check     exit with status 1 if it would change
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np

from cvpods_ext.config.segmentation import SegmentationConfig
from cvpods_ext.data import segmentation_statistics
from cvpods_ext.data.segmentation import read_classes
from cvpods_ext.evaluation.segmentation.metrics import GROUPS
from cvpods_ext.report.table import Cell, Table, to_markdown

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "cvpods_ext" / "report" / "published_ade20k_classes.csv"
PAGE = ROOT / "docs" / "published_ade20k.md"
HEADING = """# Published IoUs of ADE20K's classes

Written by `python benchmarks/published_classes.py`; nothing here is measured by us. IoUs in percent are the evaluation
records of the published checkpoints (EVA-02, seg, https://github.com/baaivision/EVA/tree/master/EVA-02), rounded there
to two digits. The means over rare, common and frequent classes are computed from them, with the groups of this toolkit:
by the share of the labelled training pixels.
"""


def read() -> tuple[list[str], dict[str, np.ndarray]]:
    """Class names, and (150,) IoUs by experiment."""
    lines = [line for line in SOURCE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    experiments = [column.removeprefix("IoU ") for column in rows[0] if column.startswith("IoU ")]
    return [row["name"] for row in rows], {
        name: np.array([float(row[f"IoU {name}"]) for row in rows]) for name in experiments
    }


def page() -> str:
    """The whole page."""
    names, iou = read()
    config = SegmentationConfig()
    limits = (config.test.rare_below, config.test.frequent_from)
    groups = segmentation_statistics.frequency_groups(config.data, ROOT, *limits)
    classes = read_classes("ade20k.csv")
    assert [each.name for each in classes] == names, "the classes of both tables differ"
    short = [name.removeprefix("upernet.eva02_").replace(".scales.ade20k", "") for name in iou]
    means = Table(
        "Means",
        ("experiment", "mIoU", *(f"mIoU{group} ({int((groups == group).sum())} classes)" for group in GROUPS)),
        tuple(
            (
                Cell(name),
                Cell(f"{values.mean():.2f}"),
                *(Cell(f"{values[groups == group].mean():.2f}") for group in GROUPS),
            )
            for name, values in iou.items()
        ),
        notes=(f"rare < {limits[0]:g} <= common < {limits[1]:g} <= frequent, share of the labelled training pixels",),
    )
    by_class = Table(
        "Classes",
        ("class", "group", "pixel share %", *short),
        tuple(
            (
                Cell(each.name),
                Cell(GROUPS[str(group)].removesuffix(" classes")),
                Cell(f"{100 * each.pixel_share:.3f}"),
                *(Cell(f"{values[k]:.2f}") for values in iou.values()),
            )
            for k, (each, group) in enumerate(zip(classes, groups, strict=True))
        ),
        text_columns=2,
    )
    return "\n".join([HEADING, to_markdown(means), to_markdown(by_class)])


def main() -> None:
    """Write or check."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--check", action="store_true")
    if flags.parse_args().check:
        sys.exit(int(PAGE.read_text(encoding="utf-8") != page()))
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
