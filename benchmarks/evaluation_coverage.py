"""Do the 95 % intervals hold what they say? Splits are simulated, so the true value is known.

A population of categories differs in frequency and in how well each model detects it; a split draws images and
categories from it. The truth is the mean over many splits; coverage is the share of splits whose interval contains it.
Ways of resampling: images, categories, both, and both with the corrected spread that `pods_compare` shows.

Run:  python benchmarks/evaluation_coverage.py [--splits 300] > benchmarks/evaluation_coverage.md
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from cvpods_ext.evaluation.detection.bootstrap import Draws, draw, group_means, resampled_aps, resampled_means
from cvpods_ext.evaluation.detection.match_table import Evaluated, MatchTable, Objects
from cvpods_ext.evaluation.detection.metrics import BY_FREQUENCY

IMAGES, PER_GROUP, RESAMPLES = 400, 25, 200
IMAGES_WITH = ((1, 4), (4, 20), (20, 80))  # images in which a rare, common, frequent category is seen
SKILL = {"first": (0.9, 1.9), "second": (1.1, 1.7)}  # Beta parameters of the chance to find an object
EVERY = (1 << 10) - 1


def split(rng: np.random.Generator) -> dict[str, MatchTable]:
    """One simulated split, evaluated for both models; their skills in a category are correlated."""
    frequency = np.repeat([0, 1, 2], PER_GROUP)
    parts: dict[str, list[tuple]] = {name: [] for name in SKILL}
    objects = []
    difficulty = rng.normal(0, 1, IMAGES)
    for category, group in enumerate(frequency):
        seen = rng.choice(IMAGES, rng.integers(*IMAGES_WITH[group]), replace=False)
        images = np.repeat(seen, rng.geometric(0.6, len(seen)))
        objects.append((images, np.full(len(images), category)))
        luck = rng.random()
        for name, (a, b) in SKILL.items():
            skill = 0.7 * luck + 0.3 * rng.beta(a, b) + (0.05 if name == "second" else 0.0)
            parts[name].append(_detections(rng, images, category, skill, difficulty))
    image, category = (np.concatenate(column).astype(np.int32) for column in zip(*objects, strict=True))
    truth = Objects(image, category, np.ones(len(image)), np.full(len(image), EVERY, dtype=np.uint64))
    return {name: _table(found, truth, frequency) for name, found in parts.items()}


def _detections(rng: np.random.Generator, images: np.ndarray, category: int, skill: float, difficulty: np.ndarray):
    """Hits with an IoU above 0.5 that depends on skill and image, and errors on the same and on other images."""
    chance = 1 / (1 + np.exp(-(4 * (skill - 0.5) - 0.7 * difficulty[images])))
    found = images[rng.random(len(images)) < chance]
    thresholds = 1 + rng.binomial(9, np.clip(skill, 0.05, 0.95), len(found))
    errors = rng.integers(0, IMAGES, rng.poisson(3 + 2 * len(images)))
    image = np.concatenate((found, errors))
    hits = np.concatenate(((1 << thresholds) - 1, np.zeros(len(errors), dtype=np.int64))).astype(np.uint64)
    score = np.concatenate((rng.beta(2 + 3 * skill, 2, len(found)), rng.beta(1, 2.5, len(errors))))
    order = np.argsort(-score, kind="stable")
    return image[order], np.full(len(image), category), score[order], hits[order]


def _table(parts: list[tuple], objects: Objects, frequency: np.ndarray) -> MatchTable:
    image, category, score, hits = (np.concatenate(column) for column in zip(*parts, strict=True))
    unused = np.zeros(len(image), dtype=np.int32)
    misses = np.uint64(EVERY) & ~hits
    evaluated = Evaluated(unused, image, category, score, unused, unused, hits, misses, unused)
    ids = np.arange(len(frequency))
    return MatchTable(evaluated, objects, np.arange(IMAGES), ids, [str(k) for k in ids], frequency)


WAYS = ("images", "categories", "both", "corrected")


def summaries(tables: dict[str, MatchTable], draws: Draws) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Per quantity: its values (4,) and, by way of resampling, the deviations (B, 4) from the mean resample."""
    ones = np.ones((1, IMAGES), dtype=np.float32)
    frequency = tables["first"].frequency
    points = {name: resampled_aps(table, ones)[0] for name, table in tables.items()}
    drawn = {name: resampled_aps(table, draws.images) for name, table in tables.items()}
    result = {}
    for quantity, point, aps in (
        ("first", points["first"], drawn["first"]),
        ("second - first", points["second"] - points["first"], drawn["second"] - drawn["first"]),
    ):
        both, spread = resampled_means(aps, point, frequency, draws.categories)
        by_categories = group_means(np.broadcast_to(point, aps.shape), frequency, draws.categories)
        ways = {"images": group_means(aps, frequency), "categories": by_categories, "both": both}
        deviations = {way: means - means.mean(axis=0) for way, means in ways.items()}
        deviations["corrected"] = deviations["both"] * spread
        result[quantity] = (group_means(point[None], frequency)[0], deviations)
    return result


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--splits", type=int, default=300)
    splits = parser.parse_args().splits
    began, frequency = time.process_time(), np.repeat([0, 1, 2], PER_GROUP)
    found = [
        summaries(split(np.random.default_rng(seed)), draw(IMAGES, frequency, RESAMPLES, seed))
        for seed in range(splits)
    ]
    print(f"{splits} splits of {IMAGES} images and {3 * PER_GROUP} categories, {RESAMPLES} resamples each, ", end="")
    print(f"{time.process_time() - began:.0f} s of CPU time. A coverage has a standard error of ", end="")
    print(f"{100 * np.sqrt(0.95 * 0.05 / splits):.1f} points.\n")
    print(f"| quantity | metric | truth | spread over splits | {' | '.join(WAYS)} |\n|---|---|{'---:|' * 6}")
    for quantity in ("first", "second - first"):
        values = np.stack([one[quantity][0] for one in found])
        truth = values.mean(axis=0)
        for k, metric in enumerate(BY_FREQUENCY):
            cells = []
            for way in WAYS:
                low, high = np.quantile([one[quantity][1][way][:, k] for one in found], (0.025, 0.975), axis=1)
                off = truth[k] - values[:, k]
                cells.append(f"{100 * np.mean((low <= off) & (off <= high)):.1f} % (width {np.mean(high - low):.2f})")
            print(f"| {quantity} | {metric} | {truth[k]:.2f} | {values[:, k].std():.2f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
