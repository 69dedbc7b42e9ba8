"""Long-tail methods written down once more, slowly, from their formulas: numpy, float64, one loop after another.

benchmarks/methods_parity.py compares the package's losses and calibrations with them; they share no code with it.

Shapes: R = RoIs, C = foreground classes, K = columns; background is column C. Logits (R, K), labels (R,) in [0, C].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Reference = Callable[[Array, Array], float]


def softmax(row: Array) -> Array:
    """(K,) -> (K,)."""
    shifted = np.exp(row - row.max())
    return shifted / shifted.sum()


def cross_entropy(row: Array, label: int) -> float:
    """(K,) logits of one RoI."""
    return float(-np.log(softmax(row)[label]))


def bce(logit: Any, is_positive: bool) -> float:
    """Binary cross entropy of one logit."""
    probability = 1 / (1 + np.exp(-logit))
    return float(-np.log(probability if is_positive else 1 - probability))


def gradient(reference: Reference, logits: Array, labels: Array, step: float = 1e-6) -> Array:
    """(R, K) by central differences."""
    found = np.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        ends = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[place] += sign * step
            ends.append(reference(moved, labels))
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


def mean_cross_entropy(logits: Array, labels: Array) -> float:
    """The baseline."""
    return float(np.mean([cross_entropy(row, label) for row, label in zip(logits, labels, strict=True)]))


def grw(counts: Array) -> Reference:
    """w_c = C p_c^-0.8 / sum_k p_k^-0.8, background 1; divided by the sum of the weights of the labels."""
    inverse = (counts / counts.sum()) ** -0.8
    weights = np.append(len(counts) * inverse / inverse.sum(), 1.0)

    def value(logits: Array, labels: Array) -> float:
        losses = [weights[label] * cross_entropy(row, label) for row, label in zip(logits, labels, strict=True)]
        return float(sum(losses) / weights[labels].sum())

    return value


def balanced_softmax(counts: Array) -> Reference:
    """Cross entropy of z_c + ln n_c, background with n = 1."""
    prior = np.append(np.log(counts), 0.0)
    return lambda logits, labels: mean_cross_entropy(logits + prior, labels)


def sum_of_entries(weight: Callable[[Array, int, int], float], columns: int) -> Reference:
    """Weighted binary cross entropies of `columns` columns over R; weight(labels, row, column)."""

    def value(logits: Array, labels: Array) -> float:
        total = 0.0
        for r, c in np.ndindex(len(labels), columns):
            total += weight(labels, r, c) * bce(logits[r, c], labels[r] == c)
        return total / len(labels)

    return value


def balanced_sigmoid(image_counts: Array, num_images: int) -> Reference:
    """Foreground RoIs see z_c - ln((1 - p_c) / p_c) with p_c = I_c / N; background RoIs see z_c."""
    share = image_counts / num_images
    shift = np.log(share / (1 - share))

    def value(logits: Array, labels: Array) -> float:
        total = 0.0
        for r, c in np.ndindex(len(labels), len(share)):
            total += bce(logits[r, c] + (labels[r] < len(share)) * shift[c], labels[r] == c)
        return total / len(labels)

    return value


def eql(image_counts: Array, num_images: int, threshold: float) -> Reference:
    """Foreground RoIs of other classes are no negatives of a class in less than `threshold` of the images."""
    rare, classes = image_counts / num_images < threshold, len(image_counts)

    def weight(labels: Array, r: int, c: int) -> float:
        return 1.0 - float(labels[r] < classes and rare[c] and labels[r] != c)

    return sum_of_entries(weight, classes)


def federated(image_counts: Array, num_sampled: int) -> Reference:
    """The labels, background one of them, filled up to `num_sampled` with the most frequent other classes."""
    classes = len(image_counts)

    def weight(labels: Array, r: int, c: int) -> float:
        present = set(labels.tolist())
        others = sorted(set(range(classes)) - present, key=lambda other: -image_counts[other])
        return float(c in present | set(others[: max(0, num_sampled - len(present))]))

    return sum_of_entries(weight, classes)


def eqlv2(classes: int, earlier: Sequence[tuple[Array, Array]]) -> Reference:
    """Negatives weigh f(g), positives 1 + 4 (1 - f(g)), background 1; g from the gradients of `earlier` batches."""
    positive, negative = np.zeros(classes), np.zeros(classes)

    def weights() -> tuple[Array, Array]:
        ratio = np.where(negative > 0, positive / (negative + 1e-10), 100.0)
        of_negatives = 1 / (1 + np.exp(-12 * (ratio - 0.8)))
        return np.append(1 + 4 * (1 - of_negatives), 1.0), np.append(of_negatives, 1.0)

    for logits, labels in earlier:
        up, down = weights()
        for r, c in np.ndindex(len(labels), classes):
            probability = 1 / (1 + np.exp(-logits[r, c]))
            if labels[r] == c:
                positive[c] += up[c] * (1 - probability)
            else:
                negative[c] += down[c] * probability
    up, down = weights()
    return sum_of_entries(lambda labels, r, c: (up if labels[r] == c else down)[c], classes + 1)


def seesaw(classes: int, earlier: Array, present: Array, fixed: Array) -> Reference:
    """Counts of `earlier` and `present` labels; compensation by the softmax of `fixed` logits, without gradient."""
    seen = np.maximum(1, np.bincount(np.concatenate((earlier, present)), minlength=classes + 1)[:classes])

    def value(logits: Array, labels: Array) -> float:
        total = 0.0
        for r, label in enumerate(labels):
            if label < classes:
                scores = softmax(fixed[r, :classes])
                factor = np.minimum(1, seen / seen[label]) ** 0.8
                factor *= np.maximum(1, scores / max(scores[label], 0.01)) ** 2
                factor[label] = 1
                total += cross_entropy(logits[r, :classes] + np.log(factor), label)
            total += cross_entropy(logits[r, classes:], int(label < classes))
        return total / len(labels)

    return value


def bags(groups: Sequence[Sequence[int]], classes: int, kept_first: float) -> Reference:
    """A softmax of two, and one per group with "others", of which the first `kept_first` times the members count."""

    def value(logits: Array, labels: Array) -> float:
        pairs = logits[:, classes : classes + 2]
        total = float(np.mean([cross_entropy(pairs[r], int(label < classes)) for r, label in enumerate(labels)]))
        for g, members in enumerate(groups):
            columns = [*members, classes + 2 + g]
            inside = [r for r, label in enumerate(labels) if label in members]
            outside = [r for r in range(len(labels)) if r not in inside][: int(kept_first * len(inside))]
            losses = [cross_entropy(logits[r, columns], list(members).index(labels[r])) for r in inside]
            losses += [cross_entropy(logits[r, columns], len(members)) for r in outside]
            total += sum(losses) / max(1, len(losses))
        return total

    return value


def ecm(instance_counts: Array) -> Reference:
    """The form of two exponentials, with exact class weights."""
    counts = np.append(instance_counts, 6.3313 * instance_counts.sum())
    others = counts.sum() - counts
    weights = others / counts * np.log1p(counts / others)
    root, other_root = counts**0.25, others**0.25

    def value(logits: Array, labels: Array) -> float:
        total = 0.0
        for r, c in np.ndindex(*logits.shape):
            up = np.exp(logits[r, c]) * (root[c] + other_root[c]) / other_root[c]
            down = np.exp(-logits[r, c]) * (root[c] + other_root[c]) / root[c]
            total -= weights[c] * np.log((up if labels[r] == c else down) / (up + down))
        return total / len(labels)

    return value


def gumbel(kept: Array, columns: int) -> Reference:
    """Binary cross entropy of exp(-exp(-z)) over `columns` columns; entries with kept (R, K) = 0 are left out."""

    def value(logits: Array, labels: Array) -> float:
        total = 0.0
        for r, c in np.ndindex(len(labels), columns):
            probability = np.exp(-np.exp(-np.clip(logits[r, c], -4, 10)))
            total -= kept[r, c] * np.log(probability if labels[r] == c else 1 - probability)
        return min(20.0, float(total) / len(labels))

    return value


def norcal(image_counts: Array, gamma: float) -> Callable[[Array], Array]:
    """(R, C + 1) -> (R, C): exp(z_c) / n_c^gamma over the sum of all and exp of background."""

    def scores(logits: Array) -> Array:
        foreground = np.exp(logits[:, :-1]) / image_counts**gamma
        return foreground / (foreground.sum(axis=1, keepdims=True) + np.exp(logits[:, -1:]))

    return scores


def fracal(image_counts: Array, num_images: int, dimensions: Array) -> Callable[[Array], Array]:
    """(R, C + 1) -> (R, C): softmax of z - log10(I_c / N) - log10 C, divided by D_c^2, normalised with background."""

    def scores(logits: Array) -> Array:
        shift = -np.log10(image_counts / num_images) - np.log10(len(image_counts))
        probabilities = np.array([softmax(row) for row in logits + np.append(shift, 0.0)])
        divided = probabilities / np.append(dimensions**2, 1.0)
        return (divided / divided.sum(axis=1, keepdims=True))[:, :-1]

    return scores


def standardised(training_logits: Array) -> Callable[[Array], Array]:
    """LogN by exact moments, (R, C + 1) -> (R, C + 1): (z_c - (mean_c - least mean)) / deviation_c."""
    mean, deviation = training_logits[:, :-1].mean(axis=0), training_logits[:, :-1].std(axis=0)
    return lambda logits: np.hstack(((logits[:, :-1] - (mean - mean.min())) / deviation, logits[:, -1:]))


def standardised_once(batch: Array, momentum: float) -> Callable[[Array], Array]:
    """LogN by running statistics after one batch: they start at 0 and 1 and move by `momentum` towards the batch's."""
    mean = momentum * batch[:, :-1].mean(axis=0)
    deviation = np.sqrt(1 + momentum * (batch[:, :-1].var(axis=0, ddof=1) - 1))
    return lambda logits: np.hstack(((logits[:, :-1] - (mean - mean.min())) / deviation, logits[:, -1:]))


def disalign(scale: Array, bias: Array, confidence: Array) -> Callable[[Array], Array]:
    """(R, C + 1) -> (R, C + 1): s (a z + b) + (1 - s) z with the confidence s (R,), background unchanged."""

    def aligned(logits: Array) -> Array:
        s = confidence[:, None]
        return np.hstack((s * (scale * logits[:, :-1] + bias) + (1 - s) * logits[:, :-1], logits[:, -1:]))

    return aligned
