"""Files of a run and of strangers with random damage, and what reads each kind in the process of `limited`."""

import collections
import io
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from damage import damage
from safetensors.torch import save

from cvpods_ext.engine.checkpoint import INDEX, CheckpointFolder
from cvpods_ext.evaluation.results import Results
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.report.status import read_run
from cvpods_ext.runtime.files import sha256_of
from cvpods_ext.runtime.records import drop_records_after


def use(text: str):
    """Read the file of "kind|path" as the commands do."""
    kind, path = text.split("|")
    return _READERS[kind](Path(path))


def damaged(kind: str, folder: Path, count: int) -> Iterator[str]:
    """`count` files of a kind below `folder`, each with other damage, as `use` takes them."""
    random = np.random.default_rng(sum(map(ord, kind)))
    sound = _SOUND[kind](folder / "sound")
    for number in range(count):
        case = folder / str(number)
        shutil.copytree(folder / "sound", case)
        path = case / sound.name
        path.write_bytes(damage(path.read_bytes(), random))
        if kind == "checkpoint":  # a checksum alone must not be what protects
            index = json.loads((case / INDEX).read_text())
            index["checkpoints"][-1]["sha256"] = sha256_of(path)
            (case / INDEX).write_text(json.dumps(index))
        yield f"{kind}|{path}"


def _state() -> dict:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(5, 4)).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scaler": {}, "iteration": 0}


def _run(folder: Path) -> CheckpointFolder:
    checkpoints = CheckpointFolder(folder)
    for iteration in (4, 8):
        checkpoints.save({**_state(), "iteration": iteration})
    checkpoints.rate(4, 12.5)
    return checkpoints


def _checkpoint(folder: Path) -> Path:
    path = _run(folder).of_iteration(8)
    assert path is not None
    return path


def _index(folder: Path) -> Path:
    return _run(folder).folder / INDEX


def _written(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    return folder / name


def _metrics(folder: Path) -> Path:
    records = [{"iteration": i, "lr": 0.1, "total_loss": 2.5 / i, "time": 0.25, "data_time": 0.1} for i in range(1, 20)]
    config = {"experiment": "x", "config": {"schedule.iters": 100, "log_every": 1}}
    _written(folder, "config.json", json.dumps(config).encode())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / "metrics.jsonl"


def _results(folder: Path) -> Path:
    metrics = {"bbox": {"AP": 31.5, "APr": None}, "segm": {"AP": 30.25}}
    provenance = {"seed": 1, "versions": {"torch": "2"}, "weights_sha256": "0" * 64}
    folder.mkdir(parents=True)
    Results(experiment="x", dataset="val", metrics=metrics, provenance=provenance).write(folder / "results.json")
    return folder / "results.json"


def _torch(folder: Path, zipped: bool) -> Path:
    buffer = io.BytesIO()
    content = {"model": collections.OrderedDict(_state()["model"]), "iteration": 7, "args": {"lr": [0.1, 0.2]}}
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return _written(folder, "model.pth", buffer.getvalue())


def _pickle(folder: Path) -> Path:
    arrays = {name: value.numpy() for name, value in _state()["model"].items()}
    return _written(folder, "model.pkl", pickle.dumps({"model": arrays, "__author__": "somebody"}, 2))


def _safetensors(folder: Path) -> Path:
    return _written(folder, "model.safetensors", save(_state()["model"], {"iteration": "5"}))


def _continue(path: Path):
    checkpoints = CheckpointFolder(path.parent, keep=1)
    state = checkpoints.latest()
    checkpoints.save({"iteration": 12, "model": {}})
    return state


def _follow(path: Path):
    return read_run(path.parent), drop_records_after(path, 10)


_SOUND = {
    "checkpoint": _checkpoint,
    "checkpoints.json": _index,
    "metrics.jsonl": _metrics,
    "results.json": _results,
    "pth": lambda folder: _torch(folder, zipped=True),
    "pth of torch before 1.6": lambda folder: _torch(folder, zipped=False),
    "pkl": _pickle,
    "safetensors": _safetensors,
}
_READERS = {
    "checkpoint": _continue,
    "checkpoints.json": _continue,
    "metrics.jsonl": _follow,
    "results.json": Results.read,
    "pth": read,
    "pth of torch before 1.6": read,
    "pkl": read,
    "safetensors": read,
}
KINDS = tuple(_SOUND)
