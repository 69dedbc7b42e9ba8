"""The part of a page that is segmentation's: IoU against training pixels, confusions, the worst images of every class.

Shapes: K = classes, I = images, H, W = pixels of an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from cvpods_ext.evaluation.segmentation.counts import Areas
from cvpods_ext.evaluation.segmentation.evaluate import Counted
from cvpods_ext.evaluation.segmentation.metrics import GROUPS, iou_and_accuracy
from cvpods_ext.evaluation.segmentation.report_data import ReportData
from cvpods_ext.report.charts import against_frequency
from cvpods_ext.report.class_browser import Browser, Example, legend, script
from cvpods_ext.report.html import figure, table_html
from cvpods_ext.report.segmentation.sources import CountedRuns
from cvpods_ext.report.table import Cell, Table
from cvpods_ext.report.task_report import PagePart
from cvpods_ext.report.thumbnails import Opener, data_uri
from cvpods_ext.runtime.progress import track

PER_CLASS = 4  # pictures of a class and experiment
CONFUSIONS = 15  # of an experiment
SMALLEST_SHARE = 0.001  # of an image: a class with fewer pixels in it is no example
RIGHT, MISSED, WRONG = (40, 110, 240), (0, 190, 70), (235, 30, 40)
OPACITY = 0.6
EXPLANATION = (
    f"Click a class to see its {PER_CLASS} images of lowest IoU, of each experiment ticked above: found in blue, "
    '<span class="truth">missed in green</span>, <span class="prediction">predicted where another class is in red'
    "</span>. Of several seeds of an experiment the first is shown."
)


def page_part(runs: Sequence[CountedRuns], family: str, data: ReportData, max_thumbnails: int = 400) -> PagePart:
    """What stands below the tables; at most `max_thumbnails` pictures, of the classes that differ or fail most."""
    if not runs:
        return PagePart()
    browser = _browser(runs, family, data)
    worst = [_worst(run.runs[0], run.runs[0].areas[family], data) for run in runs]
    counts = np.zeros(len(data.names), np.int64)
    for chosen in worst:
        for label, rows in chosen.items():
            counts[label] += len(rows)
    drawn = browser.to_draw(counts, max_thumbnails)
    examples: dict[int, list[Example]] = {}
    for position, (run, chosen) in enumerate(zip(runs, worst, strict=True)):
        wanted = [(label, *row) for label, rows in chosen.items() if label in drawn for row in rows]
        _draw_all(examples, position, run, wanted, data)
    chart = against_frequency(data.pixels_per_million, browser.values, data.names, "IoU", "training pixels per million")
    charts = f'<div class="charts">{figure("IoU against training pixels per million, with running means", chart)}</div>'
    tables = "".join(table_html(_confusion_table(run.label, run.runs[0].confusion, data)) for run in runs)
    body = legend(browser.runs) + charts + tables + browser.html("Classes and their errors", EXPLANATION)
    return PagePart(body, browser.data(drawn, examples), script())


def _browser(runs: Sequence[CountedRuns], family: str, data: ReportData) -> Browser:
    areas = runs[0].runs[0].areas[family]
    images = np.bincount(areas.label[areas.areas[2] > 0], minlength=len(data.names))
    return Browser(
        runs=[run.label for run in runs],
        names=data.names,
        values=[iou_and_accuracy(run.runs[0].areas[family].totals)[0] for run in runs],
        counts={"training pixels per million": data.pixels_per_million, "test images": images},
        groups=data.groups.tolist(),
        group_titles={group: title.removesuffix(" classes") for group, title in GROUPS.items()},
        one="class",
        value="IoU",
    )


def _worst(counted: Counted, areas: Areas, data: ReportData) -> dict[int, list[tuple[int, float]]]:
    """Image ids and IoUs of the images in which a class does worst, lowest first, for every class."""
    iou, _ = iou_and_accuracy(areas.areas[:, None, :])
    sizes = np.bincount(areas.image, areas.areas[2], minlength=areas.num_images)
    large = areas.areas[2] >= SMALLEST_SHARE * sizes[areas.image]
    rows = np.flatnonzero(large & (areas.areas[2] > 0))
    rows = rows[np.lexsort((iou[0, rows], areas.label[rows]))]
    starts = np.searchsorted(areas.label[rows], np.arange(areas.num_classes + 1))
    return {
        label: [(counted.image_ids[areas.image[row]], float(iou[0, row])) for row in rows[start:end][:PER_CLASS]]
        for label, (start, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))
        if end > start
    }


def _draw_all(
    examples: dict[int, list[Example]],
    position: int,
    run: CountedRuns,
    wanted: Sequence[tuple[int, int, float]],
    data: ReportData,
) -> None:
    """Pictures of (label, image id, IoU) of the run at `position`; images are opened once each."""
    images, maps = data.images, data.maps(run.folders[0])
    opener = Opener(lambda image_id: images.image_path(image_id - 1))
    pictures = {}
    for label, image_id, _ in track(sorted(wanted, key=lambda one: one[1]), "drawing errors"):
        truth = images.read_labels(image_id - 1)
        predicted = maps.read(image_id, (truth.shape[0], truth.shape[1]), images.num_classes)
        pictures[label, image_id] = data_uri(painted(opener.open(image_id), truth == label, predicted == label))
    for label, image_id, iou in wanted:
        examples.setdefault(label, []).append(
            Example(
                run=position,
                title=f"IoU {iou:.0f}",
                error="",
                truth=None,
                prediction=None,
                score=None,
                source=images.files[image_id - 1],
                image=pictures[label, image_id],
            )
        )


def painted(picture: Image.Image, truth: np.ndarray, predicted: np.ndarray) -> Image.Image:
    """The picture, (H, W) bool each, with what is found, missed and wrongly predicted of one class in colours."""
    pixels = np.asarray(picture.resize((truth.shape[1], truth.shape[0]))).astype(np.float64)
    for chosen, colour in ((truth & predicted, RIGHT), (truth & ~predicted, MISSED), (predicted & ~truth, WRONG)):
        pixels[chosen] = (1 - OPACITY) * pixels[chosen] + OPACITY * np.array(colour)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _confusion_table(label: str, confusion: np.ndarray, data: ReportData) -> Table:
    """The pairs of classes that take most pixels of a class away, by its share."""
    labelled = confusion.sum(axis=1)
    shares = confusion / np.maximum(labelled[:, None], 1) * (1 - np.eye(len(confusion)))
    order = np.argsort(-shares, axis=None, kind="stable")[:CONFUSIONS]
    rows = []
    for one, other in zip(*np.unravel_index(order, shares.shape), strict=True):
        if shares[one, other] > 0:
            share = 100 * float(shares[one, other])
            group = GROUPS[str(data.groups[one])].removesuffix(" classes")
            names = (data.names[one], group, data.names[other])
            rows.append((*map(Cell, names), Cell(f"{int(confusion[one, other]):,}"), Cell(f"{share:.0f}", share)))
    return Table(
        title=f"Largest confusions of {label}",
        header=("class", "group", "taken for", "pixels", "% of the class"),
        rows=tuple(rows),
        text_columns=3,
    )
