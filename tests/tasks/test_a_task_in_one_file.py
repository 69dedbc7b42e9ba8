"""A task that exists in this file alone, image-level multi-label classification, runs through every command.

Nothing outside this file knows it: what it needs from the package is the contract of `tasks.task`.
"""

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from cvpods_ext.cli import compare as pods_compare
from cvpods_ext.cli import test as pods_test
from cvpods_ext.cli import train as pods_train
from cvpods_ext.config import Config, Data
from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.data import loader
from cvpods_ext.data.dataset import InferenceDataset, TrainingDataset
from cvpods_ext.data.statistics import Pairs
from cvpods_ext.engine.checkpoint import INDEX
from cvpods_ext.engine.debug.replay import replay
from cvpods_ext.engine.debug.step_dump import load_step
from cvpods_ext.errors import ConfigError, DataError
from cvpods_ext.evaluation.metric_table import Family, Metric, MetricTable
from cvpods_ext.evaluation.results import Results
from cvpods_ext.runtime.files import sha256_of, write_json
from cvpods_ext.structures import Batch
from cvpods_ext.tasks.drawing import Shape, draw_shapes, label_colour, to_picture
from cvpods_ext.tasks.task import Evaluation, Predictions, Task

COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))
THIS_MODULE = "tasks.test_a_task_in_one_file"

METRICS = MetricTable(
    families=(
        Family(
            name="labels",
            title="labels",
            metrics=(
                Metric(name="F1", description="mean over classes"),
                Metric(name="error", description="share of wrong labels", higher_is_better=False),
            ),
            headline="F1",
            columns=(("F1", "error"),),
        ),
    )
)


@dataclass(frozen=True, kw_only=True)
class ToyConfig(Config):
    task: ClassVar[str] = THIS_MODULE

    data: Data = field(default_factory=lambda: Data(train="", test=""))


@dataclass
class ToyTarget:
    labels: torch.Tensor  # (3,) float, 1 where the colour occurs
    image_id: int

    def to(self, device):
        return replace(self, labels=self.labels.to(device))

    def pin_memory(self):
        return replace(self, labels=self.labels.pin_memory())


@dataclass
class ToyPrediction:
    scores: list[float]
    image_id: int


@dataclass(frozen=True)
class ToyImages:
    """A json of rows [id, labels]; an image holds a stripe of every colour that its labels name."""

    rows: list[tuple[int, list[int]]]

    def image_id(self, position: int) -> int:
        return self.rows[position][0]

    def training_sample(self, position: int, rng: np.random.Generator) -> tuple[torch.Tensor, ToyTarget]:
        image, target = self.test_sample(position)
        return (image.flip(2) if rng.random() < 0.5 else image), target

    def test_sample(self, position: int) -> tuple[torch.Tensor, ToyTarget]:
        image_id, labels = self.rows[position]
        image = torch.zeros(3, 9, 9, dtype=torch.uint8)
        for label in labels:
            image[:, 3 * label : 3 * label + 3] = torch.tensor(COLOURS[label], dtype=torch.uint8)[:, None, None]
        present = torch.tensor([float(label in labels) for label in range(3)])
        return image, ToyTarget(present, image_id)


class Toy(Task):
    metrics = METRICS

    def check(self, experiment: Experiment) -> None:
        read(experiment.config.data.train)

    def check_test(self, experiment: Experiment) -> None:
        read(experiment.config.data.test)

    def training_batches(self, experiment, model, start_iteration=0, rank=0, world_size=1, skipped_file=None):
        config = experiment.config
        images = read(config.data.train)
        position, label = zip(
            *((i, label) for i, (_, labels) in enumerate(images.rows) for label in labels), strict=True
        )
        pairs = Pairs(np.array(position), np.array(label), np.ones(len(label), int), len(images.rows), 3)
        sampler = loader.sampler(config.data, len(images.rows), lambda: pairs)
        dataset = TrainingDataset(images, np.arange(len(images.rows)), config.seed, loader.patience(len(images.rows)))
        order = loader.batch_order(config, sampler, None, start_iteration, rank, world_size)
        return loader.training_batches(dataset, order, config.data.workers, skipped_file)

    def test_set(self, experiment: Experiment) -> str:
        return Path(str(experiment.config.data.test)).stem

    def test_set_sha256(self, experiment: Experiment) -> str:
        return sha256_of(str(experiment.config.data.test))

    def test_batches(self, experiment, rank: int, world_size: int, done: Collection[int]):
        images = read(experiment.config.data.test)
        ids = np.array([images.image_id(i) for i in range(len(images.rows))])
        share = loader.share(np.arange(len(ids)), ids, done, rank, world_size)
        return loader.test_batches(InferenceDataset(images, share), experiment.config.data.workers, 1)

    def drawer(self, experiment: Experiment):
        def draw(image, shown):
            scores = shown.labels.tolist() if isinstance(shown, ToyTarget) else shown.scores
            caption = " ".join(f"{score:.1f}" for score in scores)
            box = (0.0, 0.0, float(image.shape[2]), float(image.shape[1]))
            return np.asarray(draw_shapes(to_picture(image), [Shape(box, caption, label_colour(0))]))

        return draw

    def predictions(self, experiment: Experiment, folder: Path) -> Predictions:
        return ToyPredictions(experiment, folder)

    def prediction_settings(self, experiment: Experiment) -> dict[str, Any]:
        return {}

    def pack_target(self, target: ToyTarget) -> dict[str, Any]:
        return dict(vars(target))

    def unpack_target(self, packed: Mapping[str, Any]) -> ToyTarget:
        return ToyTarget(**packed)


class ToyPredictions(Predictions):
    """One json for each process."""

    def completed(self) -> set[int]:
        return {row["image_id"] for content in self._contents() for row in content["rows"]}

    def settings(self) -> list[Mapping[str, Any]]:
        return [content["settings"] for content in self._contents()]

    @contextmanager
    def writer(self, rank: int, settings: Mapping[str, Any]) -> Iterator["ToyPredictions"]:
        self.rows: list[dict[str, Any]] = []
        yield self
        number = len(list(self.folder.glob("*.json")))
        write_json(self.folder / f"{rank}-{number}.json", {"settings": settings, "rows": self.rows})

    def add(self, prediction: ToyPrediction) -> None:
        self.rows.append(vars(prediction))

    def evaluate(self, families: Sequence[str]) -> Evaluation:
        scores = {row["image_id"]: row["scores"] for content in self._contents() for row in content["rows"]}
        rows = read(self.experiment.config.data.test).rows
        truth = np.array([[label in labels for label in range(3)] for _, labels in rows])
        found = np.array([scores[image_id] for image_id, _ in rows]) > 0.5
        right, wrong = (truth & found).sum(axis=0), (truth ^ found).sum(axis=0)
        f1 = float((200 * right / (2 * right + wrong)).mean())
        error = 100 * float(wrong.sum() / truth.size)
        return Evaluation({name: {"F1": f1, "error": error} for name in families}, {"threshold": 0.5})

    def _contents(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.folder.glob("*.json"))]


TASK = Toy()


def read(name: Any) -> ToyImages:
    try:
        return ToyImages([(image_id, labels) for image_id, labels in json.loads(Path(name).read_text())])
    except OSError as error:
        raise DataError(f"{name}: {error}") from None


class ToyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.predictor = nn.Linear(9, 3)

    def forward(self, batch: Batch) -> Any:
        pixels = torch.stack([image.float().view(3, 3, 3, 9).mean(dim=(2, 3)).flatten() for image in batch.images])
        logits = self.predictor(pixels / 255)
        if not self.training:
            scores = logits.sigmoid().tolist()
            return [ToyPrediction(s, t.image_id) for s, t in zip(scores, batch.targets, strict=True)]
        labels = torch.stack([target.labels for target in batch.targets])
        loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        decay = 1e-4 * self.predictor.weight.square().sum()
        accuracy = ((logits > 0) == labels.bool()).float().mean()
        return {"loss_labels": loss, "accuracy": accuracy, "loss_decay": decay}


CONFIG = f"""
from {THIS_MODULE} import ToyConfig
from cvpods_ext.config import override

config = override(
    ToyConfig(),
    data=dict(train={{train!r}}, test={{test!r}}, sampler="repeat_factor", repeat_threshold=0.5, workers=0),
    schedule=dict(iters=60, warmup_iters=1, batch_size=8, images_per_device=4, lr=2.0),
    test=dict(every=30),
    keep_best="labels/error",
    keep_checkpoints=1,
    checkpoint_every=30,
    log_every=1,
    picture_every=30,
)
"""
NET = f"from {THIS_MODULE} import ToyModel\n\n\ndef build_model(cfg):\n    return ToyModel()\n"


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """Trained and tested by the commands."""
    root = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    rows = [[i, [label for label in range(3) if rng.random() < (0.6, 0.5, 0.2)[label]]] for i in range(60)]
    names = {"train": str(root / "train.json"), "test": str(root / "val.json")}
    Path(names["train"]).write_text(json.dumps(rows[:40]))
    Path(names["test"]).write_text(json.dumps(rows[40:]))
    folder = root / "labels.linear"
    folder.mkdir()
    (folder / "config.py").write_text(CONFIG.format(**names))
    (folder / "net.py").write_text(NET)
    run(pods_train, "--dir", folder, "--device", "cpu")
    run(pods_test, "--dir", folder, "--device", "cpu")
    return folder


def run(command, *arguments):
    before = sys.argv
    sys.argv = [command.__name__, *map(str, arguments)]
    try:
        command.main()
    finally:
        sys.argv = before


def fails(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        run(pods_test, *arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_it_trains_on_what_is_called_a_loss_and_logs_the_rest(experiment):
    lines = (experiment / "outputs" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    steps = [record for record in records if "total_loss" in record]
    assert [record["iteration"] for record in steps] == list(range(1, 61))
    for record in steps:
        assert record["total_loss"] == pytest.approx(record["loss_labels"] + record["loss_decay"], rel=1e-6)
    assert steps[-1]["accuracy"] > steps[0]["accuracy"]
    assert [record["iteration"] for record in records if "test/labels/F1" in record] == [30, 60]


def test_results_say_the_task_and_its_metrics(experiment):
    results = Results.read(experiment / "results.json")
    assert (results.task, results.dataset) == (THIS_MODULE, "val")
    assert results.metrics["labels"]["F1"] > 90
    assert results.settings["threshold"] == 0.5


def test_the_checkpoint_with_the_least_error_is_kept(experiment):
    entries = json.loads((experiment / "outputs" / INDEX).read_text())["checkpoints"]
    errors = {}
    for iteration in (30, 60):
        folder = experiment / "outputs" / "tests" / f"iter_{iteration:07d}"
        errors[iteration] = Results.read(folder / "results.json").metrics["labels"]["error"]
    rated = {entry["iteration"]: entry["score"] for entry in entries if "score" in entry}
    assert rated[min(errors, key=errors.get)] == -min(errors.values())


def test_it_is_compared_by_its_own_metrics(experiment, capsys):
    run(pods_compare, experiment.parent)
    shown = capsys.readouterr().out
    assert "F1" in shown
    assert "error" in shown
    assert "labels.linear" in shown
    f1 = Results.read(experiment / "results.json").metrics["labels"]["F1"]
    assert f"{f1:.1f}" in shown
    run(pods_compare, experiment.parent, "--metrics", "error")
    assert "F1" not in capsys.readouterr().out


def test_a_test_goes_on_with_the_images_that_are_left(experiment, tmp_path):
    loaded = load_experiment(experiment)
    predictions = TASK.predictions(loaded, experiment / "outputs" / "inference" / "val")
    done = predictions.completed()
    assert len(done) == 20
    assert len(TASK.test_batches(loaded, 0, 1, done)) == 0
    assert sum(len(TASK.test_batches(loaded, rank, 3, {40, 41})) for rank in range(3)) == 18


def test_a_step_that_is_not_finite_is_dumped_and_replayed(experiment, tmp_path):
    overrides = (f"output={tmp_path}", "schedule.lr=1e38", "test.every=0", "keep_best=")
    with pytest.raises(SystemExit):
        run(pods_train, "--dir", experiment, "--device", "cpu", *overrides)
    [folder] = (tmp_path / "debug").iterdir()
    step = load_step(folder)
    assert [len(batch.targets[0].labels) for batch in step.batches] == [3, 3]
    assert replay(step) is not None


def test_what_a_task_has_not_is_said(experiment, capsys):
    shared = ("--dir", experiment, "--device", "cpu")
    assert f"for the task {THIS_MODULE}" in fails(capsys, *shared, "--detections", "x.json")
    assert "exports no results (formats: none)" in fails(capsys, *shared, "--export", "x.json")
    assert "unknown metric family 'label': did you mean 'labels'" in fails(capsys, *shared, "test.metrics=('label',)")


def test_a_mistake_is_told_before_anything_starts(experiment, tmp_path):
    loaded = load_experiment(experiment, [f"data.test={str(tmp_path / 'absent.json')!r}"])
    with pytest.raises(DataError, match=r"absent\.json"):
        TASK.check_test(loaded)
    with pytest.raises(ConfigError, match="known here"):
        load_experiment(experiment, ["data.lsj_side=5"])
