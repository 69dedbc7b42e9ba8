"""pods_weights: look into weights files, compare them, convert them, fetch them. Help imports no torch."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from cvpods_ext.cli.common import guarded, output_console, parser
from cvpods_ext.errors import ConfigError, WeightsError
from cvpods_ext.runtime.download import as_text
from cvpods_ext.runtime.words import printable

if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from cvpods_ext.modeling.weights import Checkpoint
    from cvpods_ext.modeling.weights.surgery import Category

EXAMPLES = """\
  pods_weights inspect model_final.pth                        modules, shapes, number of classes, who wrote it
  pods_weights inspect R-50.pkl --all --filter res5           every tensor whose name holds res5
  pods_weights inspect model.pth --fits playground/lvis1.0    which experiments the file fits
  pods_weights diff a.pth b.safetensors                       names, shapes and values that differ
  pods_weights convert R-50.pkl R-50.safetensors              our names, a format that can hold only tensors
  pods_weights convert coco.pth lvis.safetensors --from-categories coco_2017_train --to-categories lvis_v1_train
                                                              keep the class rows that both data sets share
  pods_weights fetch detectron2://ImageNetPretrained/MSRA/R-50.pkl
  pods_weights fetch hf://Yuxin-CV/EVA-02/eva02/det/eva02_L_lvis_sys.pth
                                                              into the cache of the library that such files belong to
  pods_weights published                                      whose published weights are known, and where they lie"""


def main() -> None:
    """Entry point of pods_weights."""
    flags = parser("pods_weights", "Inspect, compare, convert and fetch weights (.pth, .pkl, .safetensors).", EXAMPLES)
    commands = flags.add_subparsers(
        dest="command", required=True, metavar="inspect | diff | convert | fetch | published"
    )
    inspect = commands.add_parser("inspect", help="what is in a file, and which experiments it fits")
    inspect.add_argument("file")
    inspect.add_argument("--all", action="store_true", help="one row for each tensor instead of each module")
    inspect.add_argument("--filter", default="", metavar="TEXT", help="only names that contain TEXT")
    inspect.add_argument("--fits", metavar="FOLDER", help="compare with every experiment below FOLDER")
    diff = commands.add_parser("diff", help="how two files differ; exit status 1 if they do")
    diff.add_argument("first")
    diff.add_argument("second")
    convert = commands.add_parser("convert", help="write a .safetensors file under our names")
    convert.add_argument("file")
    convert.add_argument("out", help="new .safetensors file")
    convert.add_argument("--ema", action="store_true", help="take the averaged weights of the file")
    for end in ("from", "to"):
        convert.add_argument(f"--{end}-categories", metavar="DATASET", help="data set name, annotation .json, or .csv")
    fetch = commands.add_parser("fetch", help="download into the cache where model.init finds it; goes on if stopped")
    fetch.add_argument("address", help="hf://owner/repo/file, detectron2://..., https://..., or an experiment's name")
    commands.add_parser("published", help="the experiments with published weights, and their addresses")
    arguments = flags.parse_args()
    command = {"inspect": _inspect, "diff": _diff, "convert": _convert, "fetch": _fetch, "published": _published}[
        arguments.command
    ]
    guarded("pods_weights", lambda: command(arguments))


def _console() -> Console:
    """Wide when piped, so that names are never cut."""
    return output_console(piped=200)


# ---- inspect --------------------------------------------------------------------------------------------------------


def _inspect(arguments: argparse.Namespace) -> None:
    from cvpods_ext.modeling.weights.keys import EXPECTATIONS, translate
    from cvpods_ext.modeling.weights.reader import read

    checkpoint = read(arguments.file)
    state, kind = translate(checkpoint.state)
    kind = checkpoint.metadata.get("family", kind)
    out = _console()
    out.print(
        printable(f"{arguments.file}: {checkpoint.format} file, {kind} family")
        + f", {len(state)} tensors, {_count(state)} values",
        markup=False,
    )
    if EXPECTATIONS.get(kind):
        out.print(f"trained so that {EXPECTATIONS[kind]}")
    if checkpoint.ema:
        out.print(f"also holds {len(checkpoint.ema)} averaged (EMA) tensors: pods_weights convert --ema takes those")
    for name, value in checkpoint.metadata.items():
        if isinstance(value, str | int | float):
            out.print(printable(f"{name}: {str(value)[:120]}"), markup=False)
    chosen = {name: value for name, value in state.items() if arguments.filter in name}
    if not chosen:
        raise WeightsError(
            f"{arguments.file} has no tensor whose name contains {arguments.filter!r}; leave --filter out"
        )
    out.print(_tensor_table(chosen) if arguments.all else _module_table(chosen))
    if arguments.fits:
        _print_fits(out, state, Path(arguments.fits))


def _count(state: Mapping[str, torch.Tensor]) -> str:
    return f"{sum(value.numel() for value in state.values()):,}"


def _tensor_table(state: Mapping[str, torch.Tensor]) -> Table:
    table = Table("tensor", "shape", "type", box=None)
    for name, value in state.items():
        table.add_row(name, str(list(value.shape)), str(value.dtype).removeprefix("torch."))
    return table


def _module_table(state: Mapping[str, torch.Tensor]) -> Table:
    """One row for each module three levels deep: tensors, values, the shape of its last weight."""
    table = Table("module", box=None)
    for heading in ("tensors", "values", "last shape"):
        table.add_column(heading, justify="right")
    modules: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        parts = name.split(".")
        modules.setdefault(".".join(parts[: min(3, max(1, len(parts) - 1))]), {})[name] = value
    for module, tensors in modules.items():
        matrices = [value for value in tensors.values() if value.ndim > 1] or list(tensors.values())
        table.add_row(module, str(len(tensors)), _count(tensors), str(list(matrices[-1].shape)))
    return table


def _print_fits(out: Console, state: Mapping[str, torch.Tensor], root: Path) -> None:
    """Compare names and shapes with every experiment below `root`, built without memory; best fit first.

    Experiments that cannot be built here, or are of another architecture, follow with the reason.
    """
    import torch

    from cvpods_ext.config.experiment import load_experiment
    from cvpods_ext.errors import UserError
    from cvpods_ext.modeling.weights import load_into

    folders = sorted(path.parent for path in root.rglob("config.py") if (path.parent / "net.py").is_file())
    if not folders:
        raise ConfigError(
            f"no experiment (config.py with net.py) below {root}; give a folder such as playground/lvis1.0"
        )
    shapes = {name: value.to("meta") for name, value in state.items()}
    rows: list[tuple[int, str, tuple[str, ...]]] = []
    others: dict[str, list[str]] = {}
    for folder in folders:
        name = folder.name if folder == root else str(folder.relative_to(root))
        try:
            with torch.device("meta"):
                model = load_experiment(folder).build_model().to("meta")  # class counts come from files
            report = load_into(model, shapes, "the file")
            fates = (report.loaded, report.missing, report.skipped, report.unexpected, report.recomputed)
            counts = tuple(map(len, fates))
            rows.append((-counts[0] + sum(counts[1:]), name, tuple(map(str, counts))))
        except WeightsError:
            others.setdefault("another architecture", []).append(name)
        except UserError as error:
            others.setdefault(f"cannot be built here: {str(error).splitlines()[0]}", []).append(name)
    if rows:
        table = Table("experiment", "loads", "missing", "other shape", "only in file", "other input size", box=None)
        for _, name, cells in sorted(rows):
            table.add_row(name, *cells)
        out.print(table)
    for reason, names in others.items():
        several = f" and {len(names) - 1} more" if len(names) > 1 else ""
        out.print(f"{names[0]}{several}: {reason}", markup=False)


# ---- diff -----------------------------------------------------------------------------------------------------------


def _diff(arguments: argparse.Namespace) -> None:
    from cvpods_ext.modeling.weights.keys import translate
    from cvpods_ext.modeling.weights.reader import read

    first, second = (translate(read(file).state)[0] for file in (arguments.first, arguments.second))
    files = (escape(printable(file)) for file in (arguments.first, arguments.second))
    table = Table("tensor", *files, "largest difference", box=None)
    equal = 0
    for name in [*first, *(name for name in second if name not in first)]:
        cells = _difference(first.get(name), second.get(name))
        equal += cells is None
        if cells:
            table.add_row(name, *cells)
    out = _console()
    out.print(f"{equal} tensors are equal, {table.row_count} differ")
    if table.row_count:
        out.print(table)
        sys.exit(1)


def _difference(first: torch.Tensor | None, second: torch.Tensor | None) -> tuple[str, str, str] | None:
    """How two tensors of one name differ, or None; NaN equals NaN."""
    import torch

    def describe(value: torch.Tensor | None) -> str:
        return "-" if value is None else f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"

    if first is None or second is None or first.shape != second.shape:
        return describe(first), describe(second), ""
    if first.dtype == second.dtype and torch.equal(first, second):
        return None
    distance = torch.nan_to_num((first.double() - second.double()).abs(), nan=0.0)
    unequal_nan = bool((first.double().isnan() != second.double().isnan()).any())
    if first.dtype == second.dtype and not unequal_nan and not distance.any():
        return None
    return describe(first), describe(second), "NaN in one only" if unequal_nan else f"{float(distance.max()):.3g}"


# ---- convert --------------------------------------------------------------------------------------------------------


def _convert(arguments: argparse.Namespace) -> None:
    from cvpods_ext.modeling.weights.reader import read
    from cvpods_ext.modeling.weights.surgery import carry_over, match_categories
    from cvpods_ext.modeling.weights.writer import converted, write_safetensors
    from cvpods_ext.runtime.outputs import check_output_file

    categories = (arguments.from_categories, arguments.to_categories)
    check_output_file("the new file", arguments.out, (".safetensors",), reads=(arguments.file, *categories))
    if any(categories) and not all(categories):
        raise WeightsError("--from-categories and --to-categories belong together: give both or none")
    checkpoint = _chosen(read(arguments.file), arguments)
    state, metadata = converted(checkpoint, Path(arguments.file).name)
    out = _console()
    if arguments.from_categories:
        theirs, ours = _categories(arguments.from_categories), _categories(arguments.to_categories)
        rows = match_categories(theirs, ours)
        state = carry_over(state, rows, len(theirs))
        shared = int((rows >= 0).sum())
        out.print(f"{shared} of {len(ours)} classes keep their rows; the other {len(ours) - shared} start at zero")
    write_safetensors(arguments.out, state, metadata)
    out.print(printable(f"wrote {arguments.out}: {len(state)} tensors, {_count(state)} values"), markup=False)


def _chosen(checkpoint: Checkpoint, arguments: argparse.Namespace) -> Checkpoint:
    from dataclasses import replace

    if not arguments.ema:
        return checkpoint
    if not checkpoint.ema:
        raise WeightsError(f"{arguments.file} holds no averaged weights; leave --ema out")
    return replace(checkpoint, state=checkpoint.ema, ema={})


def _categories(text: str) -> list[Category]:
    """Categories in label order: of a data set known by name, an annotation json, or a csv with id and name."""
    from cvpods_ext.data import catalog
    from cvpods_ext.modeling.weights.surgery import Category

    path = Path(text)
    if path.suffix not in (".json", ".csv"):
        return [Category(category.name) for category in catalog.categories(text, Path.cwd())]
    try:
        with open(path, newline="", encoding="utf-8") as file:
            if path.suffix == ".json":
                rows = json.load(file)["categories"]
            else:
                rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        rows = sorted(rows, key=lambda row: int(row["id"]))
        return [Category(row["name"], row.get("synset") or "", tuple(row.get("synonyms") or ())) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{text} gives no categories with id and name ({type(error).__name__}: {error})") from None


# ---- fetch ----------------------------------------------------------------------------------------------------------


def _fetch(arguments: argparse.Namespace) -> None:
    from cvpods_ext.config import published_weights
    from cvpods_ext.modeling.weights.addresses import hub_file, place_for, url_of
    from cvpods_ext.modeling.weights.fetch import fetch
    from cvpods_ext.modeling.weights.locate import find_cached
    from cvpods_ext.runtime.outputs import check_output_file

    address = arguments.address
    if address in published_weights.load():
        address = published_weights.of(address).address
    url = url_of(address)
    if url is None:
        raise WeightsError(
            f"{address!r} is no address; it should start with hf://, detectron2:// or https://, "
            "or be the name of an experiment with published weights (`pods_weights published`)"
        )
    found = find_cached(address)
    if found is None and hub_file(address) is None:
        check_output_file("the copy in the cache", place_for(url))
    told = f"already here: {found}" if found else f"fetched {fetch(address)}"
    _console().print(printable(told), markup=False, soft_wrap=True)


def _published(_: argparse.Namespace) -> None:
    from cvpods_ext.config import published_weights

    table = Table("experiment", "address", "size", "stated by", box=None)
    for name, each in sorted(published_weights.load().items()):
        table.add_row(name, each.address, as_text(each.size) if each.size else "-", each.source)
    _console().print(table)
