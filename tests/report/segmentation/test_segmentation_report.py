"""Intervals and page of semantic segmentation: measured values, clear differences, confusions, pictures of errors."""

import base64
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tiny_label_maps
from PIL import Image

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.results import Results
from cvpods_ext.evaluation.segmentation.report_data import open_data, resample
from cvpods_ext.report.runs import collect
from cvpods_ext.report.segmentation import REPORT
from cvpods_ext.report.segmentation.intervals import interval_tables
from cvpods_ext.report.segmentation.page import MISSED, RIGHT, WRONG, page_part, painted
from cvpods_ext.report.segmentation.sources import CountedRuns, runs_of
from cvpods_ext.report.task_report import Request, find
from cvpods_ext.tasks.segmentation import TASK

CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.segmentation import LabelMapFiles, SegmentationConfig

config = override(
    SegmentationConfig(),
    data=dict(train=LabelMapFiles(**{train!r}), test=LabelMapFiles(**{test!r})),
    test=dict(metrics=("sem_seg", "boundary"), rare_below=0.05, frequent_from=0.3, resamples=20),
)
"""
NET = "def build_model(cfg):\n    raise AssertionError('reports build no network')\n"
COMPARE = "from cvpods_ext.cli.compare import main; main(); import sys; assert 'torch' not in sys.modules"


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """`good` is right on 95 % of the pixels, `poor` takes most cups for lamps; two seeds of each."""
    root = tmp_path_factory.mktemp("playground")
    data = {
        split: tiny_label_maps.files(tiny_label_maps.write(root / split, images, seed=seed))
        for split, images, seed in (("train", 12, 0), ("val", 14, 1))
    }
    for name in ("good", "poor"):
        folder = root / name
        folder.mkdir()
        (folder / "config.py").write_text(CONFIG.format(train=data["train"], test=data["val"]))
        (folder / "net.py").write_text(NET)
        for seed in (0, 1):
            measure(folder, seed)
    return root


def measure(folder, seed):
    """Label maps as a test would write them, and their results."""
    experiment = load_experiment(folder, [f"output=outputs/seed{seed}"])
    data = open_data(experiment.config, folder)
    shards = experiment.output / "inference" / "images"
    maps = data.maps(shards)
    weights = f"{folder.name}{seed}"
    maps.claim({"weights_sha256": weights})
    rng = np.random.default_rng(seed)
    for image_id in data.images.image_ids.tolist():
        labels = data.images.read_labels(image_id - 1)
        labels[labels == 255] = 0
        if folder.name == "poor":
            labels[(labels == 3) & (rng.random(labels.shape) < 0.8)] = 2
        wrong = rng.random(labels.shape) < 0.05
        labels[wrong] = rng.integers(0, 4, int(wrong.sum()))
        maps.write(image_id, labels)
    evaluation = TASK.predictions(experiment, shards).evaluate(["sem_seg", "boundary"])
    Results(
        experiment=folder.name,
        dataset="images",
        task="segmentation",
        metrics=evaluation.metrics,
        settings=evaluation.settings,
        provenance={"seed": seed, "weights_sha256": weights, "data_sha256": data.sha256},
    ).write(experiment.output / "results.json")


@pytest.fixture(scope="module")
def opened(playground):
    entries = collect([playground]).entries
    data = open_data(load_experiment(playground / "good").config, playground / "good")
    return entries, data, runs_of(entries, "sem_seg", data)


def test_seeds_are_one_row_and_intervals_surround_their_mean(opened):
    entries, data, found = opened
    assert [(entry.experiment, entry.seeds) for entry in entries] == [("good", [0, 1]), ("poor", [0, 1])]
    table = interval_tables("t", found, "sem_seg", data, resamples=100)[0]
    assert table.header[1:4] == ("mIoU", "mIoUr", "mIoUc")
    for entry, row in zip(entries, table.rows, strict=True):
        for name, cell in zip(table.header[1:], row[1:], strict=True):
            measured = [run.metrics["sem_seg"][name] for run in entry.runs]
            if None in measured:
                continue
            assert cell.value == pytest.approx(np.mean(measured), abs=1e-9)
            value, low, high = map(float, re.findall(r"[-+]?\d+\.\d+", cell.text))
            assert low <= value <= high


def test_a_clear_difference_is_called_one_and_its_class_is_named(opened):
    _, data, found = opened
    tables = interval_tables("t", found, "sem_seg", data, resamples=100)
    verdicts = {row[1].text: row[2].text for row in tables[1].rows}
    assert verdicts["mIoU"] == "lower"
    assert {row[0].text for row in tables[2].rows[:2]} == {"cup", "lamp"}
    twins = [CountedRuns(name, found[0].folders, found[0].runs) for name in "ab"]
    rows = interval_tables("t", twins, "sem_seg", data, resamples=30)[1].rows
    assert {row[2].text for row in rows} <= {"not distinguishable at this size", "n/a"}


def test_boundaries_are_compared_as_well(opened):
    entries, data, _ = opened
    found = runs_of(entries, "boundary", data)
    table = interval_tables("t", found, "boundary", data, resamples=20)[0]
    measured = [run.metrics["boundary"]["mIoU"] for run in entries[0].runs]
    assert table.rows[0][1].value == pytest.approx(np.mean(measured), abs=1e-9)


def test_the_page_shows_confusions_and_the_worst_images(opened):
    _, data, found = opened
    part = page_part(found, "sem_seg", data)
    cup = next(one for one in part.data["categories"] if one["name"] == "cup")
    assert cup["values"][1] < cup["values"][0] - 40
    shown = [one for one in cup["examples"] if one["run"] == 1]
    assert 0 < len(shown) <= 4
    assert all(re.fullmatch(r"IoU \d+", one["title"]) for one in shown)
    titles = [int(one["title"].split()[1]) for one in shown]
    assert titles == sorted(titles)
    Image.open(io.BytesIO(base64.b64decode(shown[0]["image"].split(",")[1]))).verify()
    first = re.findall(r"<tr>(.*?)</tr>", part.body.split("confusions of poor")[1])[1]
    assert re.findall(r">([^<]*)</td>", first)[0::2][0] == "cup"
    assert "lamp" in first
    assert page_part([], "sem_seg", data).body == ""
    assert not any(one["examples"] for one in page_part(found, "sem_seg", data, max_thumbnails=0).data["categories"])


def test_found_missed_and_wrong_pixels_have_their_colours():
    truth, predicted = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    pixels = np.asarray(painted(Image.new("RGB", (4, 1)), truth, predicted)).astype(int)
    for x, colour in enumerate((RIGHT, MISSED, WRONG, (0, 0, 0))):
        assert np.abs(pixels[0, x] - np.array(colour) * 0.6).max() <= 1


def test_the_command_writes_a_page_without_torch(playground, tmp_path):
    page = tmp_path / "page.html"
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, str(playground), "--resamples", "20", "--html", str(page)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)[1])
    assert data["runs"] == ["good", "poor"]
    assert data["groups"] == {"r": "rare", "c": "common", "f": "frequent"}


def test_what_cannot_be_compared_is_told(opened, playground, tmp_path, caplog):
    entries, data, found = opened
    fewer = type(found[0].runs[0])(found[0].runs[0].image_ids[:-1], found[0].runs[0].confusion, found[0].runs[0].areas)
    with pytest.raises(DataError, match="different images"):
        resample([found[0].runs[0], fewer], "sem_seg", data.groups, 5)
    Results.read(playground / "good" / "outputs" / "seed0" / "results.json").write(tmp_path / "results.json")
    assert runs_of(collect([tmp_path]).entries, "sem_seg", data) == []
    assert "has no label maps on disk" in caplog.text
    assert find("segmentation") is REPORT
    (playground / "other").mkdir(exist_ok=True)
    text = "from cvpods_ext.config import override\nfrom cvpods_ext.config.bases import MINI\nconfig = override(MINI)\n"
    (playground / "other" / "config.py").write_text(text)
    (playground / "other" / "net.py").write_text(NET)
    with pytest.raises(ConfigError, match="no experiment in semantic segmentation"):
        REPORT.open(Request(entries, load_experiment(playground / "other"), "sem_seg"))
