"""The part of a page that is detection's: curves, and for every category examples of its errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from cvpods_ext.evaluation.detection.detections import DetectionTable
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.metrics import ERROR_KINDS
from cvpods_ext.evaluation.detection.per_category import category_aps
from cvpods_ext.evaluation.detection.protocol import GROUPS, Curves
from cvpods_ext.report import charts
from cvpods_ext.report.detection.charts import ap_against_frequency, precision_recall
from cvpods_ext.report.detection.error_examples import ErrorExample, MatchedRun, error_examples, example_counts
from cvpods_ext.report.detection.thumbnails import thumbnail
from cvpods_ext.report.html import checkboxes, figure
from cvpods_ext.report.task_report import PagePart
from cvpods_ext.report.thumbnails import ImagePath, Opener
from cvpods_ext.runtime.progress import track

GROUP_TITLES = {"": "all categories", "r": "rare", "c": "common", "f": "frequent"}
PER_KIND = 3  # false positives, and as many missed objects, of a category and experiment


@dataclass(frozen=True)
class PageRun:
    """An experiment on the page: its name, what became of its detections, and its curves."""

    label: str
    matched: MatchedRun
    curves: Curves


def page_part(
    runs: Sequence[PageRun], image_path: ImagePath, image_counts: np.ndarray | None = None, max_thumbnails: int = 800
) -> PagePart:
    """What stands below the tables. All `runs` must have been evaluated on the same ground truth.

    image_counts (K,) are training images by category; without them there is no chart against frequency. At most
    `max_thumbnails` errors are drawn, for the categories in which the experiments differ or fail most.
    """
    if not runs:
        return PagePart()
    ap = [category_aps(run.curves.precision) for run in runs]
    data = {
        "runs": [run.label for run in runs],
        "errors": ERROR_KINDS,
        "categories": _categories(runs, ap, image_counts, image_path, max_thumbnails),
    }
    script = files("cvpods_ext.report.detection").joinpath("page.js").read_text(encoding="utf-8")
    return PagePart(_legend(runs) + _charts(runs, ap, image_counts) + _browser(runs, ap), data, script)


def group_precision(curves: Curves, members: np.ndarray) -> np.ndarray | None:
    """(R,) mean precision at IoU 0.5 over the annotated ones of `members` (K,) bool; None if there are none."""
    values = curves.precision[0][:, members, 0]
    annotated = values[:, (values > -1).all(axis=0)]
    return annotated.mean(axis=1) if annotated.size else None


def effects(ap: Sequence[np.ndarray]) -> tuple[str, np.ndarray]:
    """What the categories are sorted by, and its (K,) values.

    One experiment: what is missing to 100. Two: second minus first. More: the range over all of them.
    """
    if len(ap) == 1:
        return "missing to 100", 100 - ap[0]
    if len(ap) == 2:
        return "second minus first", ap[1] - ap[0]
    stacked = np.stack(ap)
    return "range", stacked.max(axis=0) - stacked.min(axis=0)


def _categories(
    runs: Sequence[PageRun],
    ap: Sequence[np.ndarray],
    image_counts: np.ndarray | None,
    image_path: ImagePath,
    max_thumbnails: int,
) -> list[dict[str, Any]]:
    gt = runs[0].matched.gt
    objects = runs[0].matched.matches.objects
    num_objects = np.bincount(objects.category[(objects.counted & np.uint64(1)) > 0], minlength=gt.num_categories)
    effect = effects(ap)[1]
    num_examples = np.sum([example_counts(run.matched, PER_KIND) for run in runs], axis=0)
    drawn = _categories_to_draw(effect, num_examples, max_thumbnails)
    pictures = _pictures(runs, drawn, image_path)
    return [
        {
            "name": gt.category_names[k],
            "group": GROUPS[gt.frequency[k]] if gt.federated else "",
            "images": None if image_counts is None else int(image_counts[k]),
            "objects": int(num_objects[k]),
            "ap": [_number(values[k]) for values in ap],
            "effect": _number(effect[k]),
            "drawn": k in drawn,
            "examples": pictures.get(k, []),
        }
        for k in range(gt.num_categories)
        if np.isfinite(ap[0][k])
    ]


def _categories_to_draw(effect: np.ndarray, num_examples: np.ndarray, max_thumbnails: int) -> set[int]:
    """Categories by falling |effect|, as long as their examples, (K,) over all experiments, do not exceed the limit."""
    order = np.argsort(np.where(np.isfinite(effect), -np.abs(effect), np.inf), kind="stable")
    known = order[: int(np.isfinite(effect).sum())]
    return set(known[np.cumsum(num_examples[known]) <= max_thumbnails].tolist())


def _pictures(runs: Sequence[PageRun], drawn: set[int], image_path: ImagePath) -> dict[int, list[dict[str, Any]]]:
    opener = Opener(image_path)
    shown = [error_examples(run.matched, sorted(drawn), PER_KIND) for run in track(runs, "looking for errors")]
    work = [(i, found.table, one) for i, found in enumerate(shown) for one in found.examples]
    result: dict[int, list[dict[str, Any]]] = {}
    # neighbours in this order share an image, which is then opened once
    opened = {
        id(one): thumbnail(opener, runs[i].matched, table, one)
        for i, table, one in track(sorted(work, key=lambda item: item[2].image), "drawing errors")
    }
    gt = runs[0].matched.gt
    for i, table, one in work:
        result.setdefault(one.category, []).append(_described(i, gt, table, one, opened[id(one)]))
    return result


def _described(
    position: int, gt: GroundTruth, table: DetectionTable, one: ErrorExample, picture: str
) -> dict[str, Any]:
    truth = gt.category_names[gt.categories[one.annotation]] if one.annotation >= 0 else None
    predicted, score = None, None
    if one.detection >= 0:
        predicted = gt.category_names[int(np.searchsorted(gt.category_ids, table.category_ids[one.detection]))]
        score = float(table.scores[one.detection])
    return {
        "run": position,
        "kind": one.kind,
        "error": one.error,
        "truth": truth,
        "prediction": predicted,
        "score": score,
        "image_id": int(gt.image_ids[one.image]),
        "image": picture,
    }


def _number(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None


def _legend(runs: Sequence[PageRun]) -> str:
    entries = "".join(
        f'<label><input type="checkbox" name="run" value="{i}" checked>'
        f'<span class="swatch" style="background:{charts.colour(i)}"></span>{escape(run.label)}</label>'
        for i, run in enumerate(runs)
    )
    return f'<h2>Curves</h2><div class="legend">{entries}</div>'


def _charts(runs: Sequence[PageRun], ap: Sequence[np.ndarray], image_counts: np.ndarray | None) -> str:
    gt = runs[0].matched.gt
    figures = []
    for group, name in GROUP_TITLES.items():
        members = gt.frequency == GROUPS.index(group) if group else np.ones(gt.num_categories, dtype=bool)
        lines = [group_precision(run.curves, members) for run in runs]
        if any(line is not None for line in lines) and (gt.federated or not group):
            figures.append(figure(f"Precision and recall at IoU 0.5: {name}", precision_recall(lines)))
    if image_counts is not None:
        chart = ap_against_frequency(image_counts, ap, gt.category_names)
        figures.append(figure("AP against training images, with running means", chart))
    return f'<div class="charts">{"".join(figures)}</div>'


def _browser(runs: Sequence[PageRun], ap: Sequence[np.ndarray]) -> str:
    federated = runs[0].matched.gt.federated
    effect = effects(ap)[0]
    groups = checkboxes("group", [(key, name) for key, name in GROUP_TITLES.items() if key]) if federated else ""
    heads = {"name": "category", "group": "group", "images": "training images", "objects": "objects"}
    heads |= {f"ap{i}": f"AP {run.label}" for i, run in enumerate(runs)} | {"effect": effect}
    columns = "".join(
        f'<th data-key="{key}"{" class=words" if key in ("name", "group") else ""}>{escape(name)}</th>'
        for key, name in heads.items()
    )
    return (
        "<h2>Categories and their errors</h2>"
        f"<p>Click a category to see, at IoU 0.5, its {PER_KIND} false positives of highest score and its {PER_KIND} "
        'largest objects that were not found, of each experiment ticked above: annotated in <span class="truth">green'
        '</span>, predicted in <span class="prediction">red</span>.</p>'
        f'<div class="filters">{groups}{checkboxes("error", [(name, name) for name in ERROR_KINDS])}'
        '<input id="search" type="search" placeholder="category name"><span id="count"></span></div>'
        f'<div class="scroll"><table id="categories"><thead><tr>{columns}</tr></thead><tbody></tbody></table></div>'
        '<button id="more" class="more" hidden>more</button>'
    )
