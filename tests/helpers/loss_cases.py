"""Every loss in a small setting, and the tools of the slow references: numpy loops and finite differences."""

from collections.abc import Callable

import numpy as np
import torch

from cvpods_ext.data import category_tables
from cvpods_ext.modeling.losses.bags import BalancedGroupSoftmax
from cvpods_ext.modeling.losses.balanced_softmax import BalancedSigmoid, BalancedSoftmax
from cvpods_ext.modeling.losses.base import ClassificationLoss, LossContext
from cvpods_ext.modeling.losses.cross_entropy import SoftmaxCrossEntropy
from cvpods_ext.modeling.losses.ecm import EffectiveClassMarginLoss
from cvpods_ext.modeling.losses.eql import EqualizationLoss
from cvpods_ext.modeling.losses.eqlv2 import EqualizationLossV2
from cvpods_ext.modeling.losses.federated import FederatedLoss, VerifiedFederatedLoss
from cvpods_ext.modeling.losses.gol import GumbelDropLoss, GumbelLoss
from cvpods_ext.modeling.losses.grw import GroupReweightedCrossEntropy
from cvpods_ext.modeling.losses.seesaw import SeesawLoss
from cvpods_ext.modeling.losses.sigmoid import SigmoidCrossEntropy
from cvpods_ext.structures import Targets

NUM_IMAGES = 1000
IMAGES = {"lvis_v1_train": 100_170, "lvis_v0.5_train": 56_740}  # training images with annotations

# Each makes the loss for image counts (C,) of a set of NUM_IMAGES images.
LOSSES: dict[str, Callable[[torch.Tensor], ClassificationLoss]] = {
    "softmax": lambda counts: SoftmaxCrossEntropy(),
    "grw": lambda counts: GroupReweightedCrossEntropy(counts),
    "sigmoid": lambda counts: SigmoidCrossEntropy(),
    "federated": lambda counts: FederatedLoss(counts, num_sampled=4),
    "federated, verified": lambda counts: VerifiedFederatedLoss(),
    "balanced softmax": lambda counts: BalancedSoftmax(counts),
    "balanced sigmoid": lambda counts: BalancedSigmoid(counts, NUM_IMAGES),
    "eql": lambda counts: EqualizationLoss(counts, NUM_IMAGES, threshold=0.02),
    "eqlv2": lambda counts: EqualizationLossV2(len(counts)),
    "seesaw": lambda counts: SeesawLoss(len(counts)),
    "bags": lambda counts: BalancedGroupSoftmax(counts),
    "ecm": lambda counts: EffectiveClassMarginLoss(counts),
    "gumbel": lambda counts: GumbelLoss(),
    "gumbel, drop": lambda counts: GumbelDropLoss(counts, NUM_IMAGES, threshold=0.02),
}
COUNTS = torch.tensor([900.0, 300, 40, 12, 9, 1])  # every BAGS group, classes below and above the EQL threshold


def columns(loss: ClassificationLoss, num_classes: int) -> int:
    """How many logits per RoI the loss reads."""
    return num_classes + 1 + getattr(loss, "extra_logits", 0)


def context_of(labels: torch.Tensor, num_classes: int) -> LossContext:
    """Two images that share the RoIs; class 0 is verified absent from the first, class 1 not exhaustive in it."""
    image = torch.arange(len(labels)) % 2
    targets = []
    for i in range(2):
        mine = labels[(image == i) & (labels < num_classes)].unique()
        targets.append(
            Targets(
                boxes=torch.zeros(len(mine), 4),
                labels=mine,
                image_id=i,
                size=(1, 1),
                original_size=(1, 1),
                negative_labels=torch.tensor([0] if i == 0 else []).long(),
                not_exhaustive_labels=torch.tensor([1] if i == 0 and num_classes > 1 else []).long(),
            )
        )
    return LossContext(image, targets)


def example(loss: ClassificationLoss, num_classes: int = 6, rows: int = 12, seed: int = 0):
    """Random logits (float64, with gradient), labels of about half background, and the context."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(rows, columns(loss, num_classes), generator=generator, dtype=torch.float64)
    labels = torch.randint(0, num_classes, (rows,), generator=generator)
    labels[rows // 2 :] = num_classes
    return logits.requires_grad_(), labels, context_of(labels, num_classes)


def assert_equals_reference(loss, reference, num_classes=6, rows=12, seed=0, tolerance=2e-6):
    """Value and gradient against `reference(logits, labels, context)`, numpy in and float out.

    The gradient of the reference comes from central differences in float64.
    """
    logits, labels, context = example(loss, num_classes, rows, seed)
    value = loss(logits, labels, context)
    value.backward()
    plain, target = logits.detach().numpy(), labels.numpy()
    assert abs(value.item() - reference(plain, target, context)) <= tolerance * max(1, abs(value.item()))
    numeric, step = np.zeros_like(plain), 1e-6
    for place in np.ndindex(*plain.shape):
        moved = [plain.copy(), plain.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        numeric[place] = (reference(moved[0], target, context) - reference(moved[1], target, context)) / (2 * step)
    np.testing.assert_allclose(logits.grad.numpy(), numeric, atol=5 * tolerance, rtol=1e-4)


def bce(logit: float, is_positive: bool) -> float:
    """Binary cross entropy of one logit, by its definition."""
    probability = 1 / (1 + np.exp(-logit))
    return -np.log(probability) if is_positive else -np.log(1 - probability)


def cross_entropy(logits: np.ndarray, label: int) -> float:
    """Softmax cross entropy of one row, by its definition."""
    return float(-np.log(np.exp(logits[label]) / np.exp(logits).sum()))


def lvis(table: str) -> tuple[torch.Tensor, torch.Tensor, dict[str, int]]:
    """Image counts, instance counts, and the label of each category name."""
    categories = category_tables.load(table)
    images = torch.tensor([float(category.image_count) for category in categories])
    instances = torch.tensor([float(category.instance_count) for category in categories])
    return images, instances, {category.name: label for label, category in enumerate(categories)}
