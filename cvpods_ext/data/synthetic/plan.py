"""What each synthetic image contains, drawn so that the set has the long tail and the federated labels of LVIS.

Shapes: K = classes, N = images.
The figures were computed from the published LVIS annotation files (Gupta et al., CVPR 2019; CC BY 4.0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

# Share of images with 1, 2, ... classes (LVIS v0.5 train); a geometric tail up to 20 holds the rest.
CLASSES_PER_IMAGE = np.array(
    [0.219, 0.198, 0.161, 0.132, 0.101, 0.072, 0.048, 0.029] + [0.012 * 0.7**k for k in range(12)]
)
LOG_SPREAD = 2.162  # standard deviation of ln(images per class), LVIS v1 train
CAP_OVER_MEAN = 6.6  # the most frequent LVIS v1 class has 1,977 images, the mean class 300
RARE_SHARE, COMMON_SHARE = 337 / 1203, 461 / 1203  # of the classes, LVIS v1
SINGLE_SHARE = 0.5  # of the (image, class) pairs have one instance, the others 2 + a geometric number
EXTRA_MEAN = 3.54  # mean of that number, so that a pair has 3.27 instances on average
NEGATIVES_PER_IMAGE = 9.4
NOT_EXHAUSTIVE_SHARE = 0.12  # of the images
SCENE_AFFINITY = 4.0  # a class is that much likelier in images of its own scene


@dataclass(frozen=True)
class ImagePlan:
    """Contents of one image: labels in [0, K), how many instances of each, and the federated label sets."""

    labels: np.ndarray
    instances: np.ndarray
    negatives: np.ndarray
    not_exhaustive: np.ndarray
    scene: int


def mean_classes_per_image(limit: int) -> float:
    """Mean of the histogram of classes per image when no image may have more than `limit`."""
    share = CLASSES_PER_IMAGE[:limit]
    return float((share * np.arange(1, len(share) + 1)).sum() / share.sum())


def image_counts(num_classes: int, num_images: int, limit: int, spread: float, minimum: int) -> np.ndarray:
    """Images per class, most frequent first: (K,) int64, log-normal with a capped head as in LVIS.

    The counts are the evenly spaced quantiles of the distribution and add up to about the (image, class) pairs that
    `num_images` images hold. `spread` is the standard deviation of ln(count); 0 makes all classes equally frequent.
    """
    pairs = mean_classes_per_image(min(limit, num_classes)) * num_images
    cap = min(CAP_OVER_MEAN * pairs / num_classes, 0.6 * num_images)
    quantiles = np.exp(spread * ndtri((np.arange(num_classes)[::-1] + 0.5) / num_classes))
    low, high = 1e-9, 1e9
    for _ in range(200):  # bisection on a monotone function
        middle = np.sqrt(low * high)
        low, high = (middle, high) if np.clip(middle * quantiles, minimum, cap).sum() < pairs else (low, middle)
    counts = np.clip(np.sqrt(low * high) * quantiles, minimum, max(cap, minimum))
    return np.minimum(np.rint(counts), num_images).astype(np.int64)


def frequency_thresholds(counts: np.ndarray) -> tuple[int, int]:
    """(most images of a rare class, most images of a common class), so that the groups are as large as in LVIS v1.

    LVIS itself says 10 and 100 for 100,170 images; a small set needs its own and records them.
    """
    ascending = np.sort(counts)
    last_rare = max(round(RARE_SHARE * len(counts)), 1) - 1
    last_common = max(round((RARE_SHARE + COMMON_SHARE) * len(counts)), 1) - 1
    return int(ascending[last_rare]), int(ascending[last_common])


def frequency_groups(counts: np.ndarray, thresholds: tuple[int, int]) -> list[str]:
    """ "r", "c" or "f" for each class."""
    rare, common = thresholds
    return ["r" if count <= rare else "c" if count <= common else "f" for count in counts.tolist()]


def plan_images(
    rng: np.random.Generator, counts: np.ndarray, scene_of_class: np.ndarray, num_images: int, limits: np.ndarray
) -> list[ImagePlan]:
    """Distribute classes with `counts` images each over images that hold at most `limits` (N,) instances."""
    num_classes = len(counts)
    num_scenes = int(scene_of_class.max()) + 1
    scene_of_image = rng.integers(num_scenes, size=num_images)
    members = _assign(rng, counts, scene_of_class, scene_of_image, limits)
    plans = []
    for image in range(num_images):
        labels = np.flatnonzero(members[:, image])
        instances = _instances(rng, len(labels), int(limits[image]))
        absent = np.setdiff1d(np.arange(num_classes), labels, assume_unique=True)
        negatives = rng.choice(absent, size=min(rng.poisson(NEGATIVES_PER_IMAGE), len(absent)), replace=False)
        chosen = rng.random() < NOT_EXHAUSTIVE_SHARE and len(labels) > 0
        not_exhaustive = rng.choice(labels, size=1) if chosen else labels[:0]
        plans.append(ImagePlan(labels, instances, np.sort(negatives), not_exhaustive, int(scene_of_image[image])))
    return plans


def _assign(
    rng: np.random.Generator,
    counts: np.ndarray,
    scene_of_class: np.ndarray,
    scene_of_image: np.ndarray,
    limits: np.ndarray,
) -> np.ndarray:
    """(K, N) bool incidence: the row sums are `counts`, the column sums follow the histogram of classes per image.

    Frequent classes choose first, each takes its images without replacement with a probability that grows with the
    room that is left (Gumbel top-k); where no room is left the class overfills images rather than lose its count.
    """
    share = CLASSES_PER_IMAGE / CLASSES_PER_IMAGE.sum()
    room = np.minimum(rng.choice(len(share), size=len(limits), p=share) + 1, limits).astype(float)
    members = np.zeros((len(counts), len(limits)), dtype=bool)
    for label in np.argsort(-counts, kind="stable"):
        affinity = np.where(scene_of_image == scene_of_class[label], SCENE_AFFINITY, 1.0)
        weight = np.where(room > 0, room * affinity, 1e-9 * affinity)
        order = np.argsort(-(np.log(weight) + rng.gumbel(size=len(limits))), kind="stable")
        chosen = order[: counts[label]]
        members[label, chosen] = True
        room[chosen] -= 1
    return members


def _instances(rng: np.random.Generator, num_labels: int, limit: int) -> np.ndarray:
    """How many instances each class of an image has; the largest numbers give way when the image is full."""
    extra = 2 + rng.geometric(1 / (1 + EXTRA_MEAN), size=num_labels) - 1
    instances = np.where(rng.random(num_labels) < SINGLE_SHARE, 1, extra)
    while instances.sum() > max(limit, num_labels):
        instances[np.argmax(instances)] -= 1
    return instances
