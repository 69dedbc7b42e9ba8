"""Agreement of the evaluators: the largest difference of any metric, by data set, task and evaluator.

Data: the real annotation files beside the checkout (or PODS_SHARED) and synthetic splits with every corner case, with
detections made by perturbing the annotations. The reference is the official package, and for LVIS also an evaluator
written from the definition (tests/evaluation/reference_evaluator.py).

Run:  python benchmarks/evaluation_agreement.py > benchmarks/evaluation_agreement.md
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

import reference_evaluator  # noqa: E402
from evaluation_cases import perturbed, synthetic, write_case  # noqa: E402

from cvpods_ext.evaluation.detection.evaluate import evaluate  # noqa: E402

SHARED = Path(os.environ.get("PODS_SHARED", ROOT.parent / "shared"))


def cases():
    """(name, annotations, detections, whether the definition is run too)."""
    lvis = json.loads((SHARED / "data/lvis_v0.5_val_100.json").read_text())
    yield "LVIS v0.5 val, 100 images", lvis, perturbed(lvis), False
    for split in ("train", "val"):
        coco = json.loads((SHARED / f"data/datasets/coco/annotations/instances_{split}2017.json").read_text())
        yield f"COCO photos, {split}", coco, perturbed(coco, seed=5), False
    for seed in range(5):
        yield f"synthetic corner cases {seed}", *synthetic(seed), True
    yield "synthetic, 450 detections per image", *synthetic(11, images=3, per_image=450), True


def difference(first, second) -> float:
    """Largest absolute difference over the metrics of `second`, in percent; inf if only one of the two is n/a."""
    gaps = [0.0]
    for name, expected in second.items():
        found = first[name]
        gaps.append(abs(found - expected) if None not in (found, expected) else 0.0 if found is expected else math.inf)
    return max(gaps)


def main() -> None:
    """Print a Markdown table."""
    print("| data | task | metrics | own | hotcoco | from the definition |\n|---|---|---:|---:|---:|---:|")
    for name, truth, detections, with_definition in cases():
        with tempfile.TemporaryDirectory() as folder:
            case = write_case(Path(folder), truth, detections)
            results = {evaluator: evaluate(*case, evaluator=evaluator) for evaluator in ("own", "hotcoco", "lvis")}
        for task in ("bbox", "segm"):
            official = results["lvis"][task]
            gaps = [difference(results[evaluator][task], official) for evaluator in ("own", "hotcoco")]
            if with_definition:
                gaps.append(difference(official, reference_evaluator.evaluate(truth, detections, task)))
            cells = [f"{gap:.1e}" for gap in gaps] + ["-"] * (3 - len(gaps))
            print(f"| {name} | {task} | {len(official)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
