"""Finishing beside computing changes neither the order nor the content of detections, and hides no error."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from cvpods_ext.config import DatasetFiles, DetectionConfig, override
from cvpods_ext.config.experiment import Experiment
from cvpods_ext.engine import infer
from cvpods_ext.errors import DataError
from cvpods_ext.modeling.detection import postprocess
from cvpods_ext.modeling.detection.postprocess import RawDetections
from cvpods_ext.structures import Batch, Targets
from cvpods_ext.tasks import detection_predictions
from cvpods_ext.tasks.detection import TASK

FILES = DatasetFiles(annotations="/a.json", images="/images")

CPU = torch.device("cpu")
SIZE = (40, 50)


def batches(count, images=2):
    for k in range(count):
        ids = range(k * images, (k + 1) * images)
        yield Batch([torch.zeros(3, *SIZE, dtype=torch.uint8) for _ in ids], [target(image_id) for image_id in ids])


def target(image_id):
    labels = torch.zeros(0, dtype=torch.int64)
    return Targets(boxes=torch.zeros(0, 4), labels=labels, image_id=image_id, size=SIZE, original_size=(80, 100))


class Model(torch.nn.Module):
    """One detection an image; its score tells which."""

    def detect(self, batch):
        return [
            RawDetections(
                boxes=torch.tensor([[5.0, 5.0, 25.0, 30.0]]),
                scores=torch.tensor([one.image_id / 1000]),
                labels=torch.tensor([1]),
                mask_probabilities=torch.ones(1, 28, 28),
            )
            for one in batch.targets
        ]

    def forward(self, batch):
        from cvpods_ext.modeling.detection.postprocess import finish_all

        return finish_all(self.detect(batch), batch.targets)


class WholeModel(torch.nn.Module):
    """A model of a user's that gives final detections."""

    def forward(self, batch):
        return Model()(batch)


@pytest.mark.parametrize("model", [Model(), WholeModel()])
def test_every_image_comes_in_its_order_as_the_model_alone_gives_it(model, monkeypatch):
    genuine = postprocess.finish

    def irregular(raw, one):
        time.sleep(0.01 * (one.image_id % 3 == 0))  # the first of several ends last
        return genuine(raw, one)

    monkeypatch.setattr(postprocess, "finish", irregular)
    found = list(infer.predict(TASK, model, batches(12), CPU))
    alone = [one for batch in batches(12) for one in Model()(batch)]
    assert [one.image_id for one in found] == list(range(24))
    for one, other in zip(found, alone, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert torch.equal(one.scores, other.scores)
        assert one.masks == other.masks


def test_what_waits_is_bounded(monkeypatch):
    gate, finished = threading.Event(), postprocess.finish

    def blocked(raw, one):
        gate.wait(10)
        return finished(raw, one)

    monkeypatch.setattr(postprocess, "finish", blocked)
    taken = 0

    def counted():
        nonlocal taken
        for batch in batches(200, images=1):
            taken += 1
            if taken == infer._IMAGES_WAITING + 1:
                threading.Timer(0.2, gate.set).start()
            yield batch

    stream = infer.predict(TASK, Model(), counted(), CPU)
    next(stream)
    assert taken == infer._IMAGES_WAITING + 1
    assert len(list(stream)) == 199


def test_an_error_in_a_thread_is_raised_at_its_image_and_ends_the_threads(monkeypatch):
    genuine, before = postprocess.finish, threading.active_count()

    def broken(raw, one):
        if one.image_id == 5:
            raise DataError("image 5")
        return genuine(raw, one)

    monkeypatch.setattr(postprocess, "finish", broken)
    seen = []
    stream = infer.predict(TASK, Model(), batches(50), CPU)
    with pytest.raises(DataError, match="image 5"):
        seen.extend(one.image_id for one in stream)
    assert seen == [0, 1, 2, 3, 4]
    assert threading.active_count() == before


def test_the_caller_is_not_left_in_inference_mode():
    for _ in infer.predict(TASK, Model(), batches(2), CPU):
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("evaluator", "images", "expected"), [("own", 501, True), ("own", 500, False), ("hotcoco", 501, False)]
)
def test_evaluation_beside_the_test_needs_a_first_shard_to_start_with(evaluator, images, expected, monkeypatch):
    begun = []
    monkeypatch.setattr(detection_predictions, "evaluating_beside", lambda *arguments: begun.append(arguments))
    config = override(DetectionConfig(), data=dict(test=FILES), test=dict(evaluator=evaluator, metrics=("bbox",)))
    predictions = TASK.predictions(Experiment(Path("."), config), Path("shards"))
    predictions.evaluated_beside(images)
    assert begun == ([(Path("/a.json"), Path("shards"), ("bbox",), 300)] if expected else [])


RANKS = """
import datetime, os, sys, time
from pathlib import Path
from types import SimpleNamespace
from cvpods_ext.cli import test
from cvpods_ext.config import experiment as experiments
from cvpods_ext.engine import evaluate, infer
from cvpods_ext.runtime import dist
from cvpods_ext.tasks import detection

output = Path(sys.argv[1])
dist.TIMEOUT = datetime.timedelta(seconds=1)

def slow(*_):
    time.sleep(4)
    print("evaluated")
    sys.exit(0)

config = SimpleNamespace(task="detection")
experiments.load_experiment = lambda *_: SimpleNamespace(folder=".", output=output, config=config)
detection.Detection.check_test = lambda *_: None
evaluate.families_to_test = infer.predictions_of = lambda *_: None
infer.weights_to_test, infer.test_settings = (lambda *_: "weights"), (lambda *_: {})
infer.infer = lambda *_: dist.barrier()
evaluate.evaluate = slow
sys.argv = ["pods_test", "--device", "cpu"]
started = time.monotonic()
test.main()
print("ended", time.monotonic() - started < 4)
"""


@pytest.mark.slow
def test_other_ranks_do_not_wait_for_the_evaluation_however_long_it_takes(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, str(tmp_path)],
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], said
    assert "evaluated" in said[0]
    assert "ended True" in said[1]
