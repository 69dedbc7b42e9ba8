"""Predicts on files with any number of processes: pictures, a JSON and a CSV, in bounded memory."""

from __future__ import annotations

import csv
import heapq
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from cvpods_ext.config.experiment import Experiment, load_experiment
from cvpods_ext.data.dataset import BrokenImage
from cvpods_ext.engine.predictor import model_of
from cvpods_ext.errors import ConfigError
from cvpods_ext.runtime import dist
from cvpods_ext.runtime.files import atomic_path, writing
from cvpods_ext.runtime.progress import track
from cvpods_ext.runtime.text import csv_cell
from cvpods_ext.tasks.image_result import ImageResult

JPEG_QUALITY = 92


@dataclass(frozen=True)
class Outputs:
    """What is written, and where: a folder of pictures, a JSON and a CSV; None for what is not wanted."""

    pictures: Path | None = None
    json: Path | None = None
    csv: Path | None = None
    score_threshold: float | None = None


@dataclass(frozen=True)
class Found:
    """The first pictures and what was found in them, how many there are, and why others could not be read."""

    shown: Sequence[tuple[str, str]]
    pictures: int
    broken: Sequence[str]


def picture_names(files: Sequence[Path], folder: Path) -> list[Path]:
    """Where the drawn picture of each file goes: below `folder` as the files lie below the folder they share.

    ConfigError if one of the files would be overwritten.
    """
    shared = Path(os.path.commonpath([file.absolute().parent for file in files]))
    taken: set[Path] = set()
    result = []
    for file in files:
        relative = file.absolute().relative_to(shared)
        name = relative.with_suffix(".jpg")
        if name in taken:  # a.png beside a.jpg
            name = relative.with_name(f"{relative.name}.jpg")
        taken.add(name)
        result.append(folder / name)
    given = {os.path.realpath(file) for file in files}
    if same := [name for name in result if os.path.realpath(name) in given]:
        raise ConfigError(f"--out {folder}: {same[0]} would be overwritten; choose another folder")
    return result


def predict_share(
    device: torch.device,
    folder: str,
    overrides: Sequence[str],
    weights: str,
    files: Sequence[str],
    outputs: Outputs,
    parts: str,
) -> None:
    """Predict this process's share of `files`: draw pictures, and list the rest in a file of its own in `parts`."""
    experiment = load_experiment(folder, overrides)
    model = model_of(experiment, Path(weights), device)
    mine = range(dist.rank(), len(files), dist.world_size())
    paths = [Path(files[position]) for position in mine]
    names = picture_names([Path(file) for file in files], outputs.pictures) if outputs.pictures else []
    broken: list[BrokenImage] = []
    found = model.readable(paths, min(experiment.config.data.workers, len(paths)), broken)
    shown = track(found, "predicting", total=len(paths), disable=not dist.is_main())
    with open(Path(parts) / f"{dist.rank()}.jsonl", "w", encoding="utf-8") as part:
        for own, result in shown:
            position = mine[own]
            if names:
                _draw(result, names[position], outputs.score_threshold)
            part.write(json.dumps(_record(position, result, outputs)) + "\n")
    with open(Path(parts) / f"{dist.rank()}.broken.json", "w", encoding="utf-8") as part:
        json.dump([(mine[one.image_id - 1], one.reason) for one in broken], part)
    dist.barrier()


def _record(position: int, result: ImageResult, outputs: Outputs) -> dict[str, Any]:
    record: dict[str, Any] = {
        "position": position,
        "source": result.source,
        "summary": result.summary(outputs.score_threshold),
    }
    if outputs.json:
        record["json"] = [{**one, "file_name": result.source} for one in result.to_json(position + 1)]
    if outputs.csv:
        record["columns"], record["rows"] = result.columns, result.rows()
    return record


def _draw(result: ImageResult, path: Path, score_threshold: float | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path):
        result.plot(score_threshold).save(path, quality=JPEG_QUALITY)
        for ending, picture in result.images().items():
            picture.save(path.with_name(f"{path.stem}.{ending}.png"))


def merge(parts: Path, outputs: Outputs, show: int) -> Found:
    """Write JSON and CSV from what all processes listed, in the order of the files; `show` pictures are told of."""
    shown, pictures = [], 0
    with ExitStack() as stack:
        listed = _Json(stack, outputs.json) if outputs.json else None
        table = _Csv(stack, outputs.csv) if outputs.csv else None
        for record in _merged(parts):
            pictures += 1
            if len(shown) < show:
                shown.append((record["source"], record["summary"]))
            if listed:
                listed.add(record)
            if table:
                table.add(record)
        if listed:
            listed.finish()
    broken = sorted(
        (position, reason)
        for path in parts.glob("*.broken.json")
        for position, reason in json.loads(path.read_text(encoding="utf-8"))
    )
    return Found(shown, pictures, [reason for _, reason in broken])


def _merged(parts: Path) -> Iterator[dict[str, Any]]:
    """Records of all processes by position; each process's are in order already."""
    yield from heapq.merge(*map(_lines, sorted(parts.glob("*.jsonl"))), key=lambda record: record["position"])


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        yield from map(json.loads, file)


class _Json:
    """One list of entries, written one by one."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self._file = _opened(stack, path)
        self._file.write("[")
        self._any = False

    def add(self, record: Mapping[str, Any]) -> None:
        for entry in record["json"]:
            self._file.write((",\n" if self._any else "\n") + json.dumps(entry))
            self._any = True

    def finish(self) -> None:
        self._file.write("\n]\n")


class _Csv:
    """A header and a line for each row of each picture."""

    def __init__(self, stack: ExitStack, path: Path) -> None:
        self._writer = csv.writer(_opened(stack, path))
        self._headed = False

    def add(self, record: Mapping[str, Any]) -> None:
        if not self._headed:
            self._writer.writerow(["file", *record["columns"]])
            self._headed = True
        for row in record["rows"]:
            cells = [csv_cell(cell) if isinstance(cell, str) else repr(cell) for cell in row.values()]
            self._writer.writerow([csv_cell(record["source"]), *cells])


def _opened(stack: ExitStack, path: Path) -> TextIO:
    temporary = stack.enter_context(atomic_path(path))
    return stack.enter_context(open(temporary, "w", encoding="utf-8", newline=""))


def default_folder(experiment: Experiment) -> Path:
    """Where pictures go if nobody says: beside the weights."""
    return experiment.output / "predicted"
