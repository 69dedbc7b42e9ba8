"""Every long-tail method against what its authors' code does: value and gradient, with tolerances.

    python benchmarks/methods_parity.py ../shared/golden

Recorded runs of the released code (Seesaw, GOL, ECM) are read from the given folder; the other methods, whose agreement
with the released code was established apart, are held to their formulas, written down once more in
methods_references.py. Writes benchmarks/methods_parity.md; exit status 1 if a tolerance is missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import methods_references as by_hand
import numpy as np
import torch
from torch import Tensor, nn

from cvpods_ext.data import category_tables
from cvpods_ext.modeling.calibration import DisAlign
from cvpods_ext.modeling.classifiers import LinearClassifier
from cvpods_ext.modeling.losses.bags import BalancedGroupSoftmax
from cvpods_ext.modeling.losses.balanced_softmax import BalancedSigmoid, BalancedSoftmax
from cvpods_ext.modeling.losses.base import ClassificationLoss
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.ecm import EffectiveClassMarginLoss, ExactEffectiveClassMarginLoss
from cvpods_ext.modeling.losses.eql import EqualizationLoss
from cvpods_ext.modeling.losses.eqlv2 import EqualizationLossV2
from cvpods_ext.modeling.losses.federated import FederatedLoss
from cvpods_ext.modeling.losses.gol import GumbelDropLoss, GumbelLoss
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.losses.seesaw import SeesawLoss
from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy
from cvpods_ext.modeling.losses.stateful import synchronize
from cvpods_ext.modeling.posthoc import ExactLogN, LogitShift, RunningLogN, fracal, norcal
from cvpods_ext.runtime.files import write_text

COUNTS = np.array([900.0, 300, 40, 12, 9, 1])  # of NUM_IMAGES images; every group of BAGS
NUM_IMAGES, CLASSES, ROWS = 1000, 6, 12
RECORDED, FORMULA = "recorded run", "formula"


@dataclass(frozen=True)
class Row:
    """Largest difference of value (relative) and gradient (of the largest entry); None where there is none."""

    method: str
    against: str
    value: float
    gradient: float | None
    tolerance: tuple[float, float]

    @property
    def met(self) -> bool:
        """Whether both are within the tolerances of value and gradient."""
        return self.value <= self.tolerance[0] and (self.gradient or 0.0) <= self.tolerance[1]


def relative(ours: Tensor | np.ndarray, theirs: Tensor | np.ndarray) -> float:
    """Largest difference over the largest entry of `theirs`; the difference itself if that is all zeros."""
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    return float(np.abs(ours - theirs).max() / (np.abs(theirs).max() or 1.0))


class Recorded:
    """The arrays of golden/methods."""

    def __init__(self, golden: Path) -> None:
        with np.load(golden / "methods" / "methods.npz", allow_pickle=False) as file:
            self.arrays = {name: torch.from_numpy(file[name]) for name in file.files}

    def step(self, method: str, loss: ClassificationLoss, inputs: str, outputs: str) -> Row:
        """Value and gradient of one forward pass."""
        logits = self.arrays[f"{inputs}_logits"].clone().requires_grad_()
        value = loss(logits, self.arrays[f"{inputs}_labels"])
        value.backward()
        assert logits.grad is not None
        difference = relative(value.detach(), self.arrays[f"{outputs}_loss"])
        return Row(method, RECORDED, difference, relative(logits.grad, self.arrays[f"{outputs}_grad"]), (1e-6, 2e-6))

    def scores(self, method: str, loss: ClassificationLoss, inputs: str, outputs: str) -> Row:
        """Scores at test time."""
        difference = relative(loss.scores(self.arrays[f"{inputs}_logits"]), self.arrays[f"{outputs}_value"])
        return Row(method, RECORDED, difference, None, (1e-6, 0.0))


def recorded_rows(golden: Path) -> Iterator[Row]:
    """What the released code was recorded to give."""
    recorded = Recorded(golden)
    seesaw = SeesawLoss(1203)
    for step in range(4):
        yield recorded.step(f"Seesaw, step {step}", seesaw, f"in{step:03d}", f"out{2 * step:03d}")
        synchronize([seesaw])
    yield recorded.scores("Seesaw, scores", seesaw, "in003", "out008")
    yield recorded.step("GOL, start of training", GumbelLoss(), "in026", "out042")
    yield recorded.step("GOL, beyond the limit of 20", GumbelLoss(), "in028", "out046")
    yield recorded.scores("GOL, scores", GumbelLoss(), "in029", "out050")
    table = category_tables.load("lvis_v1_train")
    ecm = EffectiveClassMarginLoss(torch.tensor([float(category.instance_count) for category in table]))
    yield Row("ECM, class weights", RECORDED, relative(ecm.weights, recorded.arrays["out057_value"]), None, (0.0, 0.0))
    yield recorded.step("ECM", ecm, "in037", "out060")
    yield recorded.scores("ECM, scores", ecm, "in038", "out064")


def example(columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random logits (ROWS, columns) above the reach of GOL's clamp, and labels, half of them background."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, ROWS)
    labels[ROWS // 2 :] = CLASSES
    return np.maximum(1.5 * random.standard_normal((ROWS, columns)), -3.0), labels


def against_formula(
    method: str, loss: Callable[[Tensor, Tensor], Tensor], reference: by_hand.Reference, columns: int = CLASSES + 1
) -> Row:
    """Value and gradient of one forward pass, `reference` differentiated numerically."""
    logits, labels = example(columns)
    ours = torch.from_numpy(logits).requires_grad_()
    value = loss(ours, torch.from_numpy(labels))
    value.backward()
    assert ours.grad is not None
    slope = by_hand.gradient(reference, logits, labels)
    difference = relative(value.detach(), np.array(reference(logits, labels)))
    return Row(method, FORMULA, difference, relative(ours.grad, slope), (2e-6, 1e-5))


def loss_rows() -> Iterator[Row]:
    """The losses that have no recorded run."""
    counts = torch.from_numpy(COUNTS).float()
    plain = by_hand.sum_of_entries(lambda labels, r, c: 1.0, CLASSES)
    yield against_formula("softmax cross entropy", SoftmaxCrossEntropy(), by_hand.mean_cross_entropy)
    yield against_formula("GRW", GroupReweightedCrossEntropy(counts), by_hand.grw(COUNTS))
    yield against_formula("balanced softmax", BalancedSoftmax(counts), by_hand.balanced_softmax(COUNTS))
    yield against_formula("sigmoid cross entropy", SigmoidCrossEntropy(), plain)
    sigmoid = by_hand.balanced_sigmoid(COUNTS, NUM_IMAGES)
    yield against_formula("balanced sigmoid", BalancedSigmoid(counts, NUM_IMAGES), sigmoid)
    eql = by_hand.eql(COUNTS, NUM_IMAGES, 0.02)
    yield against_formula("EQL", EqualizationLoss(counts, NUM_IMAGES, threshold=0.02), eql)
    federated = FederatedLoss(counts, num_sampled=6, noise=torch.zeros_like)
    yield against_formula("federated", federated, by_hand.federated(COUNTS, 6))
    yield against_formula("ECM, exact weights", ExactEffectiveClassMarginLoss(counts), by_hand.ecm(COUNTS))
    every = np.ones((ROWS, CLASSES + 1))
    yield against_formula("GOL", GumbelLoss(), by_hand.gumbel(every, CLASSES + 1))
    yield _drop_row(counts)
    yield from _stateful_rows()
    groups = ((4, 5), (2, 3), (0, 1))
    bags = BalancedGroupSoftmax(counts, noise=lambda like: torch.arange(len(like)) / len(like))
    yield against_formula("BAGS", bags, by_hand.bags(groups, CLASSES, 8), CLASSES + 2 + len(groups))


def _drop_row(counts: Tensor) -> Row:
    """DropLoss with 0.4 in place of each random number."""
    loss = GumbelDropLoss(counts, NUM_IMAGES, threshold=0.02, uniform=lambda like: torch.full_like(like, 0.4))
    _, labels = example(CLASSES + 1)
    rare = COUNTS / NUM_IMAGES < 0.02
    share = rare[labels[labels < CLASSES]].mean()
    kept = np.ones((ROWS, CLASSES))
    for r, c in np.ndindex(*kept.shape):
        kept[r, c] = not (rare[c] and labels[r] != c and (labels[r] < CLASSES or share < 0.4))
    return against_formula("GOL with DropLoss", loss, by_hand.gumbel(kept, CLASSES))


def _stateful_rows() -> Iterator[Row]:
    """EQLv2 and Seesaw after one earlier batch."""
    eqlv2, (logits, labels) = EqualizationLossV2(CLASSES), example(CLASSES + 1, seed=1)
    eqlv2(torch.from_numpy(logits), torch.from_numpy(labels))
    synchronize([eqlv2])
    yield against_formula("EQLv2, second step", eqlv2, by_hand.eqlv2(CLASSES, [(logits, labels)]))
    seesaw, (logits, earlier) = SeesawLoss(CLASSES), example(CLASSES + 2, seed=1)
    seesaw(torch.from_numpy(logits), torch.from_numpy(earlier))
    synchronize([seesaw])
    fixed, present = example(CLASSES + 2)
    reference = by_hand.seesaw(CLASSES, earlier, present, fixed)
    yield against_formula("Seesaw, second step", seesaw, reference, CLASSES + 2)


def calibration_rows() -> Iterator[Row]:
    """What changes scores or logits after the first stage; one scalar of them, by fixed weights, is differentiated."""
    counts, weights = torch.from_numpy(COUNTS), np.random.default_rng(2).standard_normal((ROWS, CLASSES))

    def row(method: str, ours: Callable[[Tensor], Tensor], theirs: Callable[[np.ndarray], np.ndarray]) -> Row:
        return against_formula(
            method,
            lambda logits, labels: (ours(logits)[:, :CLASSES].double() * torch.from_numpy(weights)).sum(),
            lambda logits, labels: float((theirs(logits)[:, :CLASSES] * weights).sum()),
        )

    def shifted(shift: Tensor) -> Callable[[Tensor], Tensor]:
        calibration = LogitShift(nn.Identity(), shift).eval()
        return lambda logits: calibration(logits).softmax(dim=1)[:, :-1]

    dimensions = np.array([1.9, 1.7, 1.5, 1.3, 1.0, 1.0])
    yield row("NorCal, scores", shifted(norcal(counts, 0.6)), by_hand.norcal(COUNTS, 0.6))
    shift = fracal(counts, NUM_IMAGES, torch.from_numpy(dimensions))
    yield row("FRACAL, scores", shifted(shift), by_hand.fracal(COUNTS, NUM_IMAGES, dimensions))
    yield _disalign_row(row)
    past, _ = example(CLASSES + 1, seed=3)
    exact = ExactLogN(nn.Identity(), CLASSES).eval()
    exact.accumulate(torch.from_numpy(past))
    yield row("LogN, exact moments", exact.calibrate, by_hand.standardised(past))
    running = RunningLogN(nn.Identity(), CLASSES).eval()
    running.accumulate(torch.from_numpy(past))
    yield row("LogN, running statistics", running.calibrate, by_hand.standardised_once(past, 5e-5))


def _disalign_row(row: Callable[..., Row]) -> Row:
    torch.manual_seed(0)
    calibration = DisAlign(LinearClassifier(4, CLASSES)).double()
    for parameter in calibration.parameters():
        nn.init.normal_(parameter)
    features = torch.randn(ROWS, 4, dtype=torch.float64)
    values = [
        calibration.logit_scale,
        calibration.logit_bias,
        calibration.confidence_layer(features).sigmoid()[:, 0],
    ]
    reference = by_hand.disalign(*(value.detach().numpy() for value in values))
    return row("DisAlign, logits", lambda logits: calibration.align(logits, features), reference)


COUNTS_USED = (
    (
        "ECM",
        "J, background 6.3313 times their sum",
        "`instance_counts`",
        "the authors' table equals J in all 1,203 entries; with J the class weights equal theirs to the last bit",
    ),
    (
        "EQL",
        "I / N, rare below 0.00177",
        "`image_counts`, `num_images`",
        "the paper's frequency is that of images; 877 classes of v1.0 are rare, 915 of v0.5",
    ),
    (
        "GRW",
        "the file `data.num_shots` if there is one, else I",
        "`class_counts`",
        "DisAlign weighs by a published file that its repository does not hold; the largest weight on v1.0 is 6.3 with "
        "I and 9.1 with J",
    ),
    ("balanced softmax", "I", "`image_counts`", "its authors' released detector, the sigmoid form, takes I / N"),
    ("NorCal", "I", "`image_counts`", "the n of the paper is a number of images"),
    ("BAGS", "J", "`instance_counts`", "the groups of the paper are by instances"),
    ("federated", "I to the power 0.5", "`image_counts`", "detectron2's table of class frequencies"),
    ("GOL with DropLoss", "I / N, rare below 0.0011", "`image_counts`, `num_images`", "the released code"),
    ("FRACAL", "I / N", "`image_counts`, `num_images`", "the released code"),
    ("Seesaw, EQLv2", "none", "-", "they count during training"),
)


def rows(golden: Path) -> list[Row]:
    """The whole table."""
    return [*recorded_rows(golden), *loss_rows(), *calibration_rows()]


HEADING = """# Methods against their originals

Written by `python benchmarks/methods_parity.py ../shared/golden`. *Recorded run*: the released code on the same input.
*Formula*: a slow second writing of the formula in float64, differentiated numerically. Differences of values are
relative, those of gradients in shares of the largest entry.
"""
COUNTS_HEADING = """
## Which counts a method is given

I: training images that contain the class. J: its annotated instances. N: training images with annotations (LVIS v1.0
100,170, v0.5 56,740).
"""


def page(found: list[Row]) -> str:
    """Markdown."""
    lines = [HEADING, "| method | against | value | gradient | tolerance | met |", "|---|---|---:|---:|---:|---|"]
    for row in found:
        slope = "-" if row.gradient is None else f"{row.gradient:.1e}"
        limits = " / ".join(f"{limit:g}" for limit in row.tolerance[: 1 if row.gradient is None else 2])
        cells = (row.method, row.against, f"{row.value:.1e}", slope, limits, "yes" if row.met else "**no**")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [COUNTS_HEADING, "| method | counts | in the folders | why |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(cells)} |" for cells in COUNTS_USED]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compare, print, write."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("golden", type=Path)
    found = rows(flags.parse_args().golden)
    text = page(found)
    print(text)
    write_text(Path(__file__).with_suffix(".md"), text)
    sys.exit(int(not all(row.met for row in found)))


if __name__ == "__main__":
    main()
