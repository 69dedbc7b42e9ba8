"""pods_data download: fetch a data set by name, with its sizes first and the doctor at the end."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cvpods_ext.cli.common import output_console
from cvpods_ext.cli.data_doctor import report_on
from cvpods_ext.errors import ConfigError, DownloadError

if TYPE_CHECKING:
    from cvpods_ext.data.downloads import Item


def add_download(commands: argparse._SubParsersAction) -> None:
    """Add `pods_data download`."""
    download = commands.add_parser("download", help="fetch and unpack a data set; goes on where it was stopped")
    download.add_argument(
        "name", metavar="NAME", help="lvis_v1, lvis_v0.5, coco_2017, ade20k, or one data set such as coco_2017_val"
    )
    download.add_argument("--to", type=Path, metavar="FOLDER", help="data root (default: $PODS_DATASETS or ./datasets)")
    download.add_argument("--dry-run", action="store_true", help="show what would be fetched, and end")
    download.add_argument("--yes", action="store_true", help="do not ask")
    download.add_argument("--keep-archives", action="store_true", help="keep the archives after they are unpacked")
    download.add_argument(
        "--no-checksums", action="store_true", help="take files of another size or checksum than is known"
    )
    download.set_defaults(run=_download)


def _download(arguments: argparse.Namespace) -> None:
    from cvpods_ext.data import downloads
    from cvpods_ext.runtime.download import as_text, require_space
    from cvpods_ext.runtime.files import nearest_folder
    from cvpods_ext.runtime.outputs import check_output_folder

    wanted = downloads.items(arguments.name)
    root = _root(arguments.to)
    check_output_folder("--to", root)
    missing = [each for each in wanted if not each.is_there(root)]
    if arguments.no_checksums:
        missing = [downloads.without_checksum(each) for each in missing]
    missing = [downloads.with_length(each) for each in missing]
    _show(wanted, missing, root)
    needed = downloads.bytes_needed(missing, root, arguments.keep_archives)
    disk = nearest_folder(root / "file")
    out = output_console()
    out.print(
        f"to fetch: {_total(missing, root)}; at most {as_text(needed)} are needed on the disk of {root}, "
        f"{as_text(shutil.disk_usage(disk).free)} are free",
        markup=False,
        soft_wrap=True,
    )
    if arguments.dry_run:
        return
    if missing:
        require_space(disk, needed, arguments.name)
        _ask(arguments.yes)
        root.mkdir(parents=True, exist_ok=True)
        _get(missing, root, arguments.keep_archives)
    if arguments.to is not None:
        out.print(f"export PODS_DATASETS={root}", markup=False, soft_wrap=True)
    with _data_root(root):
        report_on(downloads.datasets(arguments.name), Path.cwd())


def _root(given: Path | None) -> Path:
    from cvpods_ext.data.catalog import data_root

    return data_root(Path.cwd()) if given is None else Path(os.path.realpath(given.expanduser()))


@contextmanager
def _data_root(root: Path) -> Iterator[None]:
    """Let the doctor look below `root`, wherever data is looked for otherwise."""
    before = os.environ.get("PODS_DATASETS")
    os.environ["PODS_DATASETS"] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PODS_DATASETS"]
        else:
            os.environ["PODS_DATASETS"] = before


def _get(missing: Sequence[Item], root: Path, keep_archives: bool) -> None:
    from cvpods_ext.runtime.words import counted, printable

    out = output_console()
    for item in missing:
        try:
            unpacked = item.get(root, keep_archives)
        except DownloadError as error:
            if not item.optional:
                raise
            out.print(printable(f"{item.name} is left out, nothing needs it: {error}"), markup=False, soft_wrap=True)
            continue
        if unpacked is None:
            out.print(f"{item.name}: in {root / item.unpacks_to[0]}", markup=False, soft_wrap=True)
            continue
        out.print(
            f"{item.name}: {counted(unpacked.files, 'file')} in {root / item.download.folder}, "
            f"{unpacked.written:,} new",
            markup=False,
            soft_wrap=True,
        )
        if unpacked.differing:
            text = f"{counted(len(unpacked.differing), 'file was', 'files were')} there with another size and stay as"
            first = printable(unpacked.differing[0])
            out.print(f"  {text} they are, such as {first}; the archive is kept", markup=False, soft_wrap=True)


def _show(wanted: Sequence[Item], missing: Sequence[Item], root: Path) -> None:
    from rich.table import Table

    from cvpods_ext.runtime.download import as_text

    table = Table("file", "size", "checksum", "goes to", "state", box=None)
    by_url = {each.download.url: each for each in missing}
    for each in wanted:
        item = by_url.get(each.download.url)
        arrived = item.arrived(root) if item else 0
        state = "there" if item is None else f"{as_text(arrived)} have arrived" if arrived else "missing"
        download = (item or each).download
        table.add_row(
            download.url,
            download.size,
            "sha256" if download.sha256 else "none known",
            ", ".join(each.unpacks_to),
            state + (", optional" if each.optional else ""),
        )
    output_console(piped=220).print(table)


def _total(missing: Sequence[Item], root: Path) -> str:
    from cvpods_ext.runtime.download import as_text
    from cvpods_ext.runtime.words import counted

    known = sum(max(0, (each.download.length or 0) - each.arrived(root)) for each in missing)
    unknown = sum(not each.download.length for each in missing)
    return as_text(known) + (f" and {counted(unknown, 'file')} of unknown size" if unknown else "")


def _ask(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nobody is there to ask: add --yes to fetch this, or --dry-run to only see it")
    if input("fetch it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("nothing was fetched")
