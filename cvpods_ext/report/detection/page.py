"""The part of a page that is detection's: curves, and for every category examples of its errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvpods_ext.evaluation.detection.detections import DetectionTable
from cvpods_ext.evaluation.detection.ground_truth import GroundTruth
from cvpods_ext.evaluation.detection.metrics import ERROR_KINDS
from cvpods_ext.evaluation.detection.per_category import category_aps
from cvpods_ext.evaluation.detection.protocol import GROUPS, Curves
from cvpods_ext.report.charts import against_frequency
from cvpods_ext.report.class_browser import Browser, Example, legend, script
from cvpods_ext.report.detection.category_table import object_counts
from cvpods_ext.report.detection.charts import precision_recall
from cvpods_ext.report.detection.error_examples import ErrorExample, MatchedRun, error_examples, example_counts
from cvpods_ext.report.detection.thumbnails import thumbnail
from cvpods_ext.report.html import figure
from cvpods_ext.report.task_report import PagePart
from cvpods_ext.report.thumbnails import ImagePath, Opener
from cvpods_ext.runtime.progress import track

GROUP_TITLES = {"r": "rare", "c": "common", "f": "frequent"}
PER_KIND = 3  # false positives, and as many missed objects, of a category and experiment
EXPLANATION = (
    f"Click a category to see, at IoU 0.5, its {PER_KIND} false positives of highest score and its {PER_KIND} "
    'largest objects that were not found, of each experiment ticked above: annotated in <span class="truth">green'
    '</span>, predicted in <span class="prediction">red</span>.'
)


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
    browser = _browser(runs, image_counts)
    drawn = browser.to_draw(np.sum([example_counts(run.matched, PER_KIND) for run in runs], axis=0), max_thumbnails)
    data = browser.data(drawn, _examples(runs, drawn, image_path))
    body = legend(browser.runs) + _charts(runs, browser.values, image_counts)
    return PagePart(body + browser.html("Categories and their errors", EXPLANATION), data, script())


def group_precision(curves: Curves, members: np.ndarray) -> np.ndarray | None:
    """(R,) mean precision at IoU 0.5 over the annotated ones of `members` (K,) bool; None if there are none."""
    values = curves.precision[0][:, members, 0]
    annotated = values[:, (values > -1).all(axis=0)]
    return annotated.mean(axis=1) if annotated.size else None


def _browser(runs: Sequence[PageRun], image_counts: np.ndarray | None) -> Browser:
    gt = runs[0].matched.gt
    return Browser(
        runs=[run.label for run in runs],
        names=gt.category_names,
        values=[category_aps(run.curves.precision) for run in runs],
        counts={"training images": image_counts, "objects": object_counts(runs[0].matched.matches)},
        groups=[GROUPS[group] if gt.federated else "" for group in gt.frequency],
        group_titles=GROUP_TITLES,
        one="category",
        value="AP",
        errors=ERROR_KINDS,
    )


def _examples(runs: Sequence[PageRun], drawn: set[int], image_path: ImagePath) -> dict[int, list[Example]]:
    opener = Opener(image_path)
    shown = [error_examples(run.matched, sorted(drawn), PER_KIND) for run in track(runs, "looking for errors")]
    work = [(i, found.table, one) for i, found in enumerate(shown) for one in found.examples]
    result: dict[int, list[Example]] = {}
    # neighbours in this order share an image, which is then opened once
    opened = {
        id(one): thumbnail(opener, runs[i].matched, table, one)
        for i, table, one in track(sorted(work, key=lambda item: item[2].image), "drawing errors")
    }
    gt = runs[0].matched.gt
    for i, table, one in work:
        result.setdefault(one.category, []).append(_described(i, gt, table, one, opened[id(one)]))
    return result


def _described(position: int, gt: GroundTruth, table: DetectionTable, one: ErrorExample, picture: str) -> Example:
    predicted, score = None, None
    if one.detection >= 0:
        predicted = gt.category_names[int(np.searchsorted(gt.category_ids, table.category_ids[one.detection]))]
        score = float(table.scores[one.detection])
    return Example(
        run=position,
        title=f"{one.kind}: {one.error}",
        error=one.error,
        truth=gt.category_names[gt.categories[one.annotation]] if one.annotation >= 0 else None,
        prediction=predicted,
        score=score,
        source=f"image {gt.image_ids[one.image]}",
        image=picture,
    )


def _charts(runs: Sequence[PageRun], ap: Sequence[np.ndarray], image_counts: np.ndarray | None) -> str:
    gt = runs[0].matched.gt
    figures = []
    for group, name in {"": "all categories", **GROUP_TITLES}.items():
        members = gt.frequency == GROUPS.index(group) if group else np.ones(gt.num_categories, dtype=bool)
        lines = [group_precision(run.curves, members) for run in runs]
        if any(line is not None for line in lines) and (gt.federated or not group):
            figures.append(figure(f"Precision and recall at IoU 0.5: {name}", precision_recall(lines)))
    if image_counts is not None:
        chart = against_frequency(image_counts, ap, gt.category_names, "AP")
        figures.append(figure("AP against training images, with running means", chart))
    return f'<div class="charts">{"".join(figures)}</div>'
