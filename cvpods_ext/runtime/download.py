"""One downloader for weights and data: it resumes, checks, and puts a file in its place only when it is whole.

What has arrived lies in `<file>.part`, and what it is a part of in `<file>.part.json`. A download that was stopped,
however it was stopped, goes on from there. Processes that want the same file take turns by a lock beside it, so that
it is fetched once. Imports no torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from cvpods_ext.errors import DataError, DownloadError, StorageError, UserError
from cvpods_ext.runtime import http as requests
from cvpods_ext.runtime.files import read_json, storage_error, write_json
from cvpods_ext.runtime.progress import byte_bar, console
from cvpods_ext.runtime.words import printable

logger = logging.getLogger(__name__)

MARGIN = 64 << 20  # bytes of a disk that are left free
_CHUNK = 1 << 18
_TRIES = 6  # in a row without a new byte
_FIRST_WAIT = 1.0  # seconds, doubled with every try
_LONGEST_WAIT = 60.0
_REPORT_EVERY = 60.0  # seconds between two lines where no bar is shown
_REMEDY = "What has arrived is kept: make room, then run the command again and it goes on from there"


@dataclass(frozen=True)
class Source:
    """Where a file comes from and what is known of it: `size` in bytes, `sha256` in hex, headers such as a token.

    `plain_http` allows an address without encryption. `by_hand` ends every error: how to do without the download.
    `title` is what messages call the file, by default its name on disk.
    """

    url: str
    size: int | None = None
    sha256: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    plain_http: bool = False
    by_hand: str = ""
    title: str = ""


def fetch(source: Source, target: Path, verify: Callable[[Path], None] | None = None) -> Path:
    """The file of `source` at `target`, downloaded unless it is there; `verify` may refuse it by a UserError.

    Raises DownloadError (offline, refused, not what was published: nothing of it is kept) or StorageError, on a disk
    without enough space before the first byte.
    """
    if target.is_file():
        return target
    requests.check_address(source.url, source.plain_http)
    if forbidden := requests.offline():
        raise DownloadError(
            f"{_name(source)} is not on this machine, and {forbidden} forbids a download. {_hand(source, target)}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target):
            if not target.is_file():
                _Download(source, target).run(verify)
    except OSError as error:
        raise storage_error(target, error, _REMEDY) from error
    except requests.Unreachable as error:
        raise DownloadError(
            f"{_name(source)} is not on this machine, and there is {error}. {_hand(source, target)}"
        ) from None
    except DownloadError as error:
        raise DownloadError(f"{error}. {_hand(source, target)}") from None
    return target


def require_space(folder: Path, needed: int, what: str) -> None:
    """StorageError unless `needed` bytes fit on the disk of `folder`, which exists, with a margin."""
    free = shutil.disk_usage(folder).free
    if needed + MARGIN > free:
        raise StorageError(
            f"{what} needs {as_text(needed)} in {folder}, where {as_text(free)} are free. "
            "Make room or choose another place"
        )


def as_text(size: int | None) -> str:
    """Bytes as people say them: "350.3 MB", in powers of 1,000 as publishers and shops do."""
    if size is None:
        return "size not stated"
    value = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{size} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


class _Download:
    """One file on its way: the part on disk, the digest of it, and what is known of the whole."""

    def __init__(self, source: Source, target: Path) -> None:
        self.source, self.target = source, target
        self.name = source.title or target.name
        self.part = target.with_name(f"{target.name}.part")
        self.notes = target.with_name(f"{target.name}.part.json")
        self.validator = self._validator_on_disk()
        self.total: int | None = None
        self.digest = hashlib.sha256()
        self.have = 0
        self.reported = time.monotonic()

    def run(self, verify: Callable[[Path], None] | None) -> None:
        """Fetch, check, put in place. A part that turns out to be of another version is given up once."""
        resumed = self._take_up_part()
        try:
            self._transfer()
            self._check(verify)
        except _Wrong as error:
            self._start_over()
            if not resumed:
                raise DownloadError(str(error)) from None
            say("%s: %s; fetching it anew", self.name, error)
            self.run(verify)
            return
        with open(self.part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.part, self.target)
        self.notes.unlink(missing_ok=True)

    def _validator_on_disk(self) -> str | None:
        """What the part is a part of by ETag or date; "" if only a checksum can tell, None if it cannot be told."""
        with suppress(DataError):
            notes: Any = read_json(self.notes, 1 << 16)
            if (
                isinstance(notes, dict)
                and notes.get("url") == self.source.url
                and isinstance(notes.get("validator"), str)
            ):
                return notes["validator"] or ("" if self.source.sha256 else None)
        return "" if self.source.sha256 else None

    def _take_up_part(self) -> bool:
        """Read the part that an earlier run left; whether there is one."""
        if self.validator is None or not self.part.is_file():
            self._start_over()
            return False
        with open(self.part, "rb") as file:
            while chunk := file.read(1 << 22):
                self.digest.update(chunk)
                self.have += len(chunk)
        return self.have > 0

    def _start_over(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)
        self.digest, self.have, self.validator, self.total = hashlib.sha256(), 0, "", None

    def _transfer(self) -> None:
        """Until the whole file is there; a connection that breaks is opened again while bytes keep coming."""
        at_start, before, tries = self.have, self.have, 0
        with byte_bar() as bar:
            while True:
                try:
                    self._receive(bar)
                    return
                except requests.Changed as error:
                    self._start_over()
                    failed, wait = error, 0.0
                except requests.Unreachable as error:
                    if self.have == at_start:
                        raise  # offline: say so at once
                    failed, wait = error, 0.0
                except requests.Interrupted as error:
                    failed, wait = error, error.wait
                tries = 1 if self.have > before else tries + 1
                if tries >= _TRIES:
                    raise requests.Interrupted(
                        f"{failed}; {as_text(self.have)} are kept and the next try goes on there"
                    )
                say("%s: %s; trying again from %s on", self.name, failed, as_text(self.have))
                before = self.have
                time.sleep(min(_LONGEST_WAIT, max(wait, _FIRST_WAIT * 2 ** (tries - 1))))

    def _receive(self, bar: Progress) -> None:
        """One request, from the end of the part on; returns when the server has sent everything."""
        source = self.source
        with requests.get(source.url, self.have, self.validator or "", source.headers, source.plain_http) as answer:
            if answer.complete:
                return
            self._begin(answer)
            task = bar.add_task(printable(self.name), total=answer.total, completed=self.have)
            with open(self.part, "ab", buffering=0) as file:
                while chunk := self._read(answer):
                    if file.write(chunk) != len(chunk):
                        raise OSError(28, os.strerror(28), str(self.part))
                    self.digest.update(chunk)
                    self.have += len(chunk)
                    bar.update(task, completed=self.have)
                    self._report(answer.total, bar)
                    if self.source.size is not None and self.have > self.source.size:
                        raise _Wrong(f"{source.url} sends more than the {source.size:,} bytes that were published")
            bar.remove_task(task)
            if answer.total is not None and self.have < answer.total:
                raise requests.Interrupted(f"{source.url} stopped at {self.have:,} of {answer.total:,} bytes")

    def _begin(self, answer: requests.Answer) -> None:
        """What can be told before the first byte: another file than was published, or than the part is of; no space."""
        source, name = self.source, self.name
        if answer.content_type == "text/html" and not self.target.name.endswith((".html", ".htm")):
            raise DownloadError(
                f"{source.url} answers with a web page, perhaps of a login or a proxy; nothing was kept"
            )
        if source.size is not None and answer.total is not None and answer.total != source.size:
            self._start_over()
            raise DownloadError(
                f"{source.url} has {answer.total:,} bytes, published are {source.size:,}; nothing was kept"
            )
        if answer.start and self.total not in (None, answer.total):
            raise requests.Changed(f"{source.url} has changed meanwhile")
        if answer.start == 0 and self.have:
            say("%s: the server has another file now or sends whole files only; starting over", name)
            self._start_over()
        remaining = 0 if answer.total is None else answer.total - self.have
        require_space(self.target.parent, remaining, f"the rest of {name}" if self.have else name)
        self.validator, self.total = answer.validator, answer.total
        write_json(self.notes, {"url": source.url, "validator": answer.validator})
        verb = "going on with" if self.have else "fetching"
        say("%s %s (%s) from %s to %s", verb, name, as_text(answer.total), source.url, self.target)

    def _read(self, answer: requests.Answer) -> bytes:
        try:
            return answer.body.read1(_CHUNK)  # type: ignore[attr-defined]
        except (OSError, http.client.HTTPException) as error:
            raise requests.Interrupted(f"the connection broke ({error or type(error).__name__})") from None

    def _report(self, total: int | None, bar: Progress) -> None:
        """A line now and then where nobody sees the bar."""
        now = time.monotonic()
        if bar.disable and now - self.reported > _REPORT_EVERY:
            share = f" ({self.have / total:.0%})" if total else ""
            say("%s: %s of %s%s", self.name, as_text(self.have), as_text(total), share)
            self.reported = now

    def _check(self, verify: Callable[[Path], None] | None) -> None:
        source, found = self.source, self.digest.hexdigest()
        if source.size is not None and self.have != source.size:
            raise _Wrong(f"{source.url} sent {self.have:,} bytes, published are {source.size:,}; nothing was kept")
        if source.sha256 and found != source.sha256.lower():
            raise _Wrong(
                f"{source.url} sent a file with sha256 {found}, published is {source.sha256}; nothing was kept"
            )
        if verify is not None:
            try:
                verify(self.part)
            except UserError as error:
                raise _Wrong(f"{source.url} sent what is of no use, nothing was kept: {error}") from None


class _Wrong(Exception):
    """What arrived is not what was published."""


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Hold the lock beside `target`, whose folder exists; where a file system has no locks, go on without."""
    path = target.with_name(f"{target.name}.lock")
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(file, target)
            named = os.stat(path)
        except FileNotFoundError:  # its owner was done between our two calls
            os.close(file)
            continue
        except BaseException:
            os.close(file)
            raise
        if os.path.samestat(named, os.fstat(file)):
            break
        os.close(file)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(file)


def _lock(file: int, target: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        logger.info("waiting for another process that fetches %s", target)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        logger.info("no lock on %s (%s): going on without", target, error)


def say(message: str, *values: Any) -> None:
    """Tell the user on stderr: by the log where one is set up, else directly."""
    if logger.isEnabledFor(logging.INFO) and logger.hasHandlers():
        logger.info(message, *values)
    else:
        console().print(printable(message % values), markup=False, highlight=False, soft_wrap=True)


def _name(source: Source) -> str:
    return f"{source.url} ({as_text(source.size)})" if source.size is not None else source.url


def _hand(source: Source, target: Path) -> str:
    return source.by_hand or f"Download it elsewhere and put it at {target}"
