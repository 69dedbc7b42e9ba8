"""Intervals and page of image classification: measured values, clear differences, confusions, pictures of errors."""

import base64
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import tiny_classes
import torch
from PIL import Image

from cvpods_ext.config.experiment import load_experiment
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.classification import scores
from cvpods_ext.evaluation.classification.report_data import open_data
from cvpods_ext.evaluation.classification.scores import SCORES
from cvpods_ext.evaluation.intervals import Interval, class_effects, difference, interval, mix_seeds
from cvpods_ext.evaluation.results import Results
from cvpods_ext.evaluation.shards import ShardWriter
from cvpods_ext.report.classification import REPORT
from cvpods_ext.report.classification.intervals import interval_tables
from cvpods_ext.report.classification.page import page_part
from cvpods_ext.report.classification.sources import runs_of
from cvpods_ext.report.runs import collect
from cvpods_ext.report.task_report import find, request_for
from cvpods_ext.structures.classification import ClassScores
from cvpods_ext.tasks.classification import TASK

CONFIG = """
from cvpods_ext.config import override
from cvpods_ext.config.classification import ClassificationConfig, ImageFiles

config = override(
    ClassificationConfig(),
    data=dict(train=ImageFiles(images={train!r}), test=ImageFiles(images={test!r}), image_side=32),
    test=dict(many_above=6, few_below=3),
)
"""
NET = "def build_model(cfg):\n    raise AssertionError('reports build no network')\n"
COMPARE = "from cvpods_ext.cli.compare import main; main(); import sys; assert 'torch' not in sys.modules"


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """`good` knows 9 of 10 images but every ant, `poor` fewer, and takes every dog for an ant; two seeds of each."""
    root = tmp_path_factory.mktemp("playground")
    train = tiny_classes.write(root / "train", (12, 6, 3, 2))
    test = tiny_classes.write(root / "test", (30, 30, 30, 30), seed=1)
    for name, right in (("good", (1.0, 0.9, 0.9, 0.9)), ("poor", (1.0, 0.7, 0.7, 0.0))):
        folder = root / name
        folder.mkdir()
        (folder / "config.py").write_text(CONFIG.format(train=str(train), test=str(test)))
        (folder / "net.py").write_text(NET)
        for seed in (0, 1):
            measure(folder, right, seed)
    return root


def measure(folder, right, seed):
    """Scores as a test would write them, and their results."""
    experiment = load_experiment(folder, [f"output=outputs/seed{seed}"])
    test_set = open_data(experiment.config, folder)
    shards = experiment.output / "inference" / "test"
    rng = np.random.default_rng(seed)
    weights = f"{folder.name}{seed}"
    with ShardWriter(SCORES, shards, 0, {"weights_sha256": weights}) as writer:
        for image_id, label in enumerate(test_set.photos.labels.tolist(), 1):
            found = rng.random(4) * 0.1
            wrong = 0 if label == 3 else (label + 1) % 4
            found[label if rng.random() < right[label] else wrong] = 0.5 + 0.4 * rng.random()
            prediction = ClassScores(torch.from_numpy(found), image_id)
            writer.append(image_id, scores.to_rows(prediction))
    evaluation = TASK.predictions(experiment, shards).evaluate(["classification"])
    Results(
        experiment=folder.name,
        dataset="test",
        task="classification",
        metrics=evaluation.metrics,
        settings=evaluation.settings,
        provenance={"seed": seed, "weights_sha256": weights, "data_sha256": test_set.photos.sha256()},
    ).write(experiment.output / "results.json")


@pytest.fixture(scope="module")
def opened(playground):
    entries = collect([playground]).entries
    experiment = load_experiment(playground / "good")
    test_set = open_data(experiment.config, playground / "good")
    return entries, test_set, runs_of(entries, test_set)


def test_seeds_are_one_row_although_their_intervals_differ(opened):
    entries = opened[0]
    assert [(entry.experiment, entry.seeds) for entry in entries] == [("good", [0, 1]), ("poor", [0, 1])]
    first, second = (run.settings["intervals"]["top1"] for run in entries[0].runs)
    assert first != second


def test_intervals_surround_the_mean_of_the_measured_values(opened):
    entries, test_set, found = opened
    table = interval_tables("t", found, test_set, resamples=200)[0]
    assert table.header == ("experiment", "top1", "top5", "mean", "many", "medium", "few")
    for entry, row in zip(entries, table.rows, strict=True):
        for name, cell in zip(table.header[1:], row[1:], strict=True):
            measured = np.mean([run.metrics["classification"][name] for run in entry.runs])
            assert cell.value == pytest.approx(measured, abs=1e-9)
            value, low, high = map(float, re.findall(r"[-+]?\d+\.\d+", cell.text))
            assert low <= value <= high


def test_an_interval_equals_a_bootstrap_by_hand(opened):
    _, test_set, found = opened
    run, truth = found[0].runs[0], test_set.photos.labels
    right = run.labels[:, 0] == truth
    rng = np.random.default_rng(7)
    by_hand = [100 * right[rng.integers(len(right), size=len(right))].mean() for _ in range(4000)]
    one = interval_tables("t", [type(found[0])("good", [run])], test_set, resamples=4000)[0].rows[0][1]
    low, high = map(float, re.findall(r"\[(.*), (.*)\]", one.text)[0])
    assert (low, high) == pytest.approx(np.percentile(by_hand, (2.5, 97.5)), abs=1.0)


def test_a_clear_difference_is_called_one_and_a_twin_is_not(opened):
    _, test_set, found = opened
    tables = interval_tables("t", found, test_set, resamples=200)
    verdicts = {row[1].text: row[2].text for row in tables[1].rows}
    assert verdicts["top1"] == verdicts["few"] == "lower"
    assert verdicts["many"] == "not distinguishable at this size"
    worst = tables[2].rows[0]
    assert [cell.text for cell in worst[:2]] == ["dog", "few"]
    assert worst[4].value == pytest.approx((worst[3].value - worst[2].value) / 4)
    twins = [type(found[0])(name, found[0].runs) for name in "ab"]
    rows = interval_tables("t", twins, test_set, resamples=50)[1].rows
    assert {row[2].text for row in rows} == {"not distinguishable at this size"}
    with pytest.raises(ConfigError, match="--reference nobody"):
        interval_tables("t", found, test_set, reference="nobody")


def test_the_page_shows_confusions_and_the_pictures_of_wrong_images(opened):
    _, test_set, found = opened
    part = page_part(found, test_set)
    assert [one["name"] for one in part.data["categories"]] == ["ant", "bee", "cat", "dog"]
    dog = part.data["categories"][3]
    assert dog["counts"] == [2, 30]
    assert dog["values"][1] == 0
    shown = [one for one in dog["examples"] if one["run"] == 1]
    assert len(shown) == 6
    assert all(one["title"].startswith("taken for ant 0.") and one["truth"] == "dog" for one in shown)
    picture = Image.open(io.BytesIO(base64.b64decode(shown[0]["image"].split(",")[1])))
    assert np.abs(np.asarray(picture).mean(axis=(0, 1)) - tiny_classes.COLOURS["dog"]).max() < 25
    confusions = re.findall(r"<tr>(.*?)</tr>", part.body.split("confusions of poor")[1])
    assert re.findall(r">([^<]*)</td>", confusions[1]) == ["dog", "few", "ant", "30", "100"]
    few = page_part(found, test_set, max_thumbnails=12)
    assert [one["drawn"] for one in few.data["categories"]] == [False, False, False, True]


def test_the_command_writes_a_page_without_torch(playground, tmp_path):
    page = tmp_path / "page.html"
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, str(playground), "--resamples", "20", "--html", str(page)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    assert data["runs"] == ["good", "poor"]
    assert "Most frequent confusions of good" in text


def test_runs_of_other_images_or_without_scores_are_told(opened, playground, tmp_path, caplog):
    _, test_set, found = opened
    half = scores.TopScores(*(column[:60] for column in vars(found[0].runs[1]).values()))
    with pytest.raises(DataError, match="different images"):
        interval_tables("t", [type(found[0])("x", [found[0].runs[0], half])], test_set)
    results = Results.read(playground / "good" / "outputs" / "seed0" / "results.json")
    results.write(tmp_path / "results.json")
    assert runs_of(collect([tmp_path]).entries, test_set) == []
    assert "has no scores on disk" in caplog.text
    assert find("classification") is REPORT


def test_nothing_measured_gives_an_empty_page(opened):
    assert page_part([], opened[1]).body == ""


def test_another_config_is_refused(opened, playground):
    entries = opened[0]
    request = request_for(entries, "classification")
    (playground / "detector").mkdir(exist_ok=True)
    text = "from cvpods_ext.config import override\nfrom cvpods_ext.config.bases import MINI\nconfig = override(MINI)\n"
    (playground / "detector" / "config.py").write_text(text)
    (playground / "detector" / "net.py").write_text(NET)
    detector = load_experiment(playground / "detector")
    with pytest.raises(ConfigError, match="no experiment in image classification"):
        REPORT.open(type(request)(entries, detector, "classification"))


def test_an_interval_is_centred_on_the_value_and_none_without_one():
    draws = np.array([10.0, 20.0, 30.0, np.nan])
    found = interval(np.array([50.0, 52.0]), draws)
    assert isinstance(found, Interval)
    assert found.value == 51.0
    assert (found.low + found.high) / 2 == pytest.approx(51.0)
    assert interval(np.array([np.nan]), draws) is None
    assert interval(np.array([1.0]), np.array([np.nan])) is None
    assert difference(Interval(2.0, 1.0, 3.0, 0.5, ())).verdict == "higher"
    assert difference(Interval(2.0, -1.0, 3.0, 0.5, ())).verdict == "not distinguishable at this size"


def test_mixed_seeds_keep_the_mean_and_one_seed_stays_as_it_is():
    drawn = np.random.default_rng(0).normal(size=(3, 5000))
    assert mix_seeds(drawn).mean() == pytest.approx(drawn.mean(), abs=0.05)
    assert np.array_equal(mix_seeds(drawn[:1]), drawn[0])


def test_effects_add_up_to_the_change_of_the_mean():
    before, after = np.array([10.0, np.nan, 30.0]), np.array([20.0, 5.0, 10.0])
    effects = class_effects(before, after)
    assert [one.category for one in effects] == [2, 0]
    assert sum(one.effect for one in effects) == pytest.approx(15.0 - 20.0)


def test_evaluation_without_resamples_has_no_intervals(playground):
    experiment = load_experiment(playground / "good", ["output=outputs/seed0", "test.resamples=0"])
    predictions = TASK.predictions(experiment, experiment.output / "inference" / "test")
    assert "intervals" not in predictions.evaluate(["classification"]).settings
