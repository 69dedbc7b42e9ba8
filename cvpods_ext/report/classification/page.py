"""The part of a page that is classification's: accuracy against frequency, confusions, the errors of every class.

Shapes: K = classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cvpods_ext.evaluation.classification.metrics import GROUPS, class_totals
from cvpods_ext.evaluation.classification.report_data import ReportData
from cvpods_ext.evaluation.classification.scores import TopScores, confusions
from cvpods_ext.report.charts import against_frequency
from cvpods_ext.report.class_browser import Browser, Example, legend, script
from cvpods_ext.report.classification.sources import ScoredRuns
from cvpods_ext.report.html import figure, table_html
from cvpods_ext.report.table import Cell, Table
from cvpods_ext.report.task_report import PagePart
from cvpods_ext.report.thumbnails import Opener, data_uri
from cvpods_ext.runtime.progress import track

PER_CLASS = 6  # pictures of a class and experiment
CONFUSIONS = 15  # of an experiment
EXPLANATION = (
    f"Click a class to see its {PER_CLASS} images whose wrong class has the highest score, of each experiment ticked "
    "above, and what they are taken for. Of several seeds of an experiment the first is shown."
)


def page_part(runs: Sequence[ScoredRuns], data: ReportData, max_thumbnails: int = 800) -> PagePart:
    """What stands below the tables; at most `max_thumbnails` images, of the classes that differ or fail most."""
    if not runs:
        return PagePart()
    first = [(run.label, run.runs[0]) for run in runs]
    browser = _browser(first, data)
    wrong = [_wrong(scores, data) for _, scores in first]
    counts = [
        np.minimum(np.bincount(_truth(scores, data)[rows], minlength=len(data.names)), PER_CLASS)
        for (_, scores), rows in zip(first, wrong, strict=True)
    ]
    drawn = browser.to_draw(np.sum(counts, axis=0), max_thumbnails)
    examples: dict[int, list[Example]] = {}
    for position, ((_, scores), rows) in enumerate(zip(first, wrong, strict=True)):
        _add_examples(examples, position, scores, rows, data, drawn)
    chart = against_frequency(data.training_counts, browser.values, data.names, "top1")
    charts = f'<div class="charts">{figure("top1 of a class against training images, with running means", chart)}</div>'
    tables = "".join(table_html(_confusion_table(label, scores, data)) for label, scores in first)
    body = legend(browser.runs) + charts + tables + browser.html("Classes and their errors", EXPLANATION)
    return PagePart(body, browser.data(drawn, examples), script())


def _truth(scores: TopScores, data: ReportData) -> np.ndarray:
    """The label of every image with scores."""
    return data.photos.labels[scores.image_ids - 1]


def _browser(runs: Sequence[tuple[str, TopScores]], data: ReportData) -> Browser:
    totals = [class_totals(truth := _truth(scores, data), scores.ranks(truth), len(data.names)) for _, scores in runs]
    with np.errstate(invalid="ignore"):
        values = [100 * each[1] / each[0] for each in totals]
    return Browser(
        runs=[label for label, _ in runs],
        names=data.names,
        values=values,
        counts={"training images": data.training_counts, "test images": totals[0][0]},
        groups=data.groups.tolist(),
        group_titles={group: group for group in GROUPS},
        one="class",
        value="top1",
    )


def _wrong(scores: TopScores, data: ReportData) -> np.ndarray:
    """Rows of `scores` whose highest one is of another class, by falling score."""
    rows = np.flatnonzero(scores.labels[:, 0] != _truth(scores, data))
    return rows[np.argsort(-scores.scores[rows, 0], kind="stable")]


def _add_examples(
    examples: dict[int, list[Example]],
    position: int,
    scores: TopScores,
    rows: np.ndarray,
    data: ReportData,
    drawn: set[int],
) -> None:
    """Pictures of the first `PER_CLASS` of `rows` of every class in `drawn`."""
    photos, names, truth = data.photos, data.names, _truth(scores, data)
    opener = Opener(lambda image_id: photos.image_path(image_id - 1))
    taken: dict[int, int] = {}
    chosen = []
    for row in rows.tolist():
        label = int(truth[row])
        if label in drawn and taken.get(label, 0) < PER_CLASS:
            taken[label] = taken.get(label, 0) + 1
            chosen.append(row)
    for row in track(chosen, "drawing errors"):
        label, predicted, image_id = int(truth[row]), int(scores.labels[row, 0]), int(scores.image_ids[row])
        examples.setdefault(label, []).append(
            Example(
                run=position,
                title=f"taken for {names[predicted]} {scores.scores[row, 0]:.2f}",
                error="",
                truth=names[label],
                prediction=None,
                score=None,
                source=photos.files[image_id - 1],
                image=data_uri(opener.open(image_id)),
            )
        )


def _confusion_table(label: str, scores: TopScores, data: ReportData) -> Table:
    """The pairs of classes that are mistaken most often, with the share of the class's images."""
    truth = _truth(scores, data)
    classes, others, times = (column[:CONFUSIONS].tolist() for column in confusions(truth, scores.labels[:, 0]))
    images = np.bincount(truth, minlength=len(data.names))
    rows = [
        (
            Cell(data.names[one]),
            Cell(str(data.groups[one])),
            Cell(data.names[other]),
            Cell(str(count), count),
            Cell(f"{100 * count / images[one]:.0f}", 100 * count / float(images[one])),
        )
        for one, other, count in zip(classes, others, times, strict=True)
    ]
    return Table(
        title=f"Most frequent confusions of {label}",
        header=("class", "group", "taken for", "images", "% of the class"),
        rows=tuple(rows),
        text_columns=3,
    )
