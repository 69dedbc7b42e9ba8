import csv
import errno
import hashlib
import json
import logging
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_disk import small_disk

from cvpods_ext.cli.common import guarded
from cvpods_ext.errors import DataError, StorageError
from cvpods_ext.runtime.files import append_line, atomic_path, read_json, sha256_of, storage_error, write_json, writing
from cvpods_ext.runtime.log import setup_logging


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_half()
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path):
    write_json(tmp_path / "deep" / "er" / "a.json", [1])
    assert json.loads((tmp_path / "deep" / "er" / "a.json").read_text()) == [1]


def test_nan_does_not_become_invalid_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_checksums_are_those_of_the_whole_content(tmp_path):
    path = tmp_path / "blob"
    path.write_bytes(b"x" * 10_000)
    assert sha256_of(path, chunk_bytes=999) == hashlib.sha256(b"x" * 10_000).hexdigest()


# ---- a full disk ----------------------------------------------------------------------------------------------------

NOISE = torch.rand(60_000, generator=torch.Generator().manual_seed(0))
TABLE = pa.table({"x": NOISE.numpy()})


def write_torch(path: Path) -> None:
    with open(path, "wb") as file:
        torch.save({"a": NOISE}, file)


def write_arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE)


def write_csv(path: Path) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([[i, i, i] for i in range(30_000)])


def write_numpy(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, NOISE.numpy())


WRITERS = {
    "torch": write_torch,
    "torch by name": lambda path: torch.save({"a": NOISE}, path),
    "safetensors": lambda path: save_file({"a": NOISE}, path),
    "arrow": write_arrow,
    "parquet": lambda path: pq.write_table(TABLE, path),
    "numpy": write_numpy,
    "csv": write_csv,
    "text": lambda path: path.write_text("x" * 200_000),
    "png": lambda path: Image.fromarray(NOISE[:57_600].mul(255).byte().reshape(120, 160, 3).numpy()).save(path, "PNG"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_every_library_that_meets_a_full_disk_gives_the_same_message(tmp_path, writer):
    with small_disk(tmp_path / "small", "48k") as real:
        if not real:
            pytest.skip("no right to mount a small file system")
        path = tmp_path / "small" / "file"
        path.write_text("before")
        with (
            pytest.raises(
                StorageError, match=r"cannot write .*small/file \(.*; 0\.00 GiB free\)\. Make room"
            ) as raised,
            atomic_path(path) as temporary,
        ):
            WRITERS[writer](temporary)
        assert "Error" not in str(raised.value)
        assert os.listdir(tmp_path / "small") == ["file"]
        assert path.read_text() == "before"


def test_the_free_space_is_that_of_a_folder_on_a_disk_of_its_own(tmp_path):
    with small_disk(tmp_path / "small", "48k") as real:
        if not real:
            pytest.skip("no right to mount a small file system")
        full = OSError(errno.ENOSPC, "No space left on device")
        assert "; 0.00 GiB free)" in str(storage_error(tmp_path / "small", full))


def test_a_line_that_does_not_fit_is_taken_back(tmp_path):
    with small_disk(tmp_path / "small", "16k") as real:
        if not real:
            pytest.skip("no right to mount a small file system")
        path = tmp_path / "small" / "lines.txt"
        append_line(path, "first")
        with pytest.raises(StorageError, match="No space left on device"):
            append_line(path, "x" * 40_000)
        assert path.read_text() == "first\n"


def test_only_a_full_disk_is_called_one(tmp_path, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path))

    monkeypatch.setattr(tempfile, "mkstemp", denied)
    with pytest.raises(StorageError) as raised:
        write_json(tmp_path / "a.json", 1)
    assert str(raised.value) == (
        f"cannot write {tmp_path / 'a.json'} (Permission denied). Choose another place or make this one writable, then "
        "run the command again"
    )


@pytest.mark.parametrize("message", ["batch of 8 requested and refused", "5 values requested and none given"])
def test_words_that_resemble_a_failed_write_are_none(tmp_path, message):
    with pytest.raises(RuntimeError, match=message), writing(tmp_path / "x"):
        raise RuntimeError(message)


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO, errno.EISDIR]
)
def test_a_file_that_the_system_refuses_ends_a_command_with_one_message(tmp_path, number, capsys):
    def body():
        raise OSError(number, os.strerror(number), str(tmp_path / "a.json"))

    with pytest.raises(SystemExit) as ended:
        guarded("pods_any", body)
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"pods_any: cannot use {tmp_path / 'a.json'} ({os.strerror(number)}). Mend its path or its permissions\n"
    )


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "absent", "x"), OSError("no number"), KeyError("x")])
def test_a_defect_of_ours_keeps_its_traceback(error):
    def body():
        raise error

    with pytest.raises(type(error)):
        guarded("pods_any", body)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_failed_write_is_found_behind_the_error_that_hides_it(tmp_path, number):
    def hidden():
        with writing(tmp_path / "x", "continue elsewhere"):
            try:
                raise OSError(number, "anything")
            except OSError as error:
                raise KeyError("a library's own") from error

    with pytest.raises(StorageError, match=f"{os.strerror(number)}.*continue elsewhere"):
        hidden()


def test_errors_that_are_no_failed_write_pass_unchanged(tmp_path):
    for error in (FileNotFoundError(errno.ENOENT, "absent"), RuntimeError("shapes differ"), StorageError("as it was")):
        with pytest.raises(type(error)) as raised, writing(tmp_path / "x"):
            raise error
        assert raised.value is error


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.json", tmp_path / "file" / "deeper" / "a.json"):
        with pytest.raises(StorageError, match=r"cannot write .*a\.json \(.*file is a file, not a folder\)\. Choose"):
            write_json(path, 1)
        with pytest.raises(StorageError, match=r"cannot write .*a\.json"):
            append_line(path, "x")


# ---- reading JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "not valid"), (b"{", "not valid"), (b"\xff\xfe", "not valid"), (b"[" * 200_000, "nested too deeply"),
     (b"1" * 5000, "not valid"), (b"\0" * 8, "not valid"), (b" " * 9000 + b"1", "9,001 bytes, more than")],
)  # fmt: skip
def test_damaged_json_is_one_error_whatever_the_damage(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.json .*{words}"):
        read_json(path, max_bytes=1000 if len(content) == 9001 else 1 << 20)


def test_json_is_read_from_files_only(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("absent", "cannot be read"), ("", "is no file"), ("pipe", "is no file")):
        with pytest.raises(DataError, match=words):
            read_json(tmp_path / name)
    write_json(tmp_path / "a.json", {"a": [1, None]})
    assert read_json(tmp_path / "a.json") == {"a": [1, None]}


def test_a_log_on_a_full_disk_leaves_lines_out_and_says_so_once(tmp_path, capsys):
    with small_disk(tmp_path / "small", "16k") as real:
        if not real:
            pytest.skip("no right to mount a small file system")
        setup_logging(tmp_path / "small")
        try:
            for _ in range(3):
                logging.getLogger("cvpods_ext").warning("%s", "x" * 20_000)
        finally:
            setup_logging()
    shown = capsys.readouterr().err
    assert shown.count("cannot be written any more ([Errno 28] No space left on device)") == 1
    assert "Traceback" not in shown


def test_a_command_that_meets_a_full_disk_anywhere_ends_with_one_message(tmp_path, capsys):
    def body():
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(SystemExit) as ended:
        guarded("pods_any", body)
    assert ended.value.code == 2
    assert re.search(
        r"pods_any: cannot write .*No space left on device; .* GiB free.*Make room", capsys.readouterr().err
    )
