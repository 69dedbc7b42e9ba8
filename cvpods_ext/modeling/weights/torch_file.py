"""What torch.save writes, in its zip format and in the one before 1.6, without torch's own reader.

The zip format: `<name>/data.pkl` refers to storages, each of which is one entry `<name>/data/<key>`. Entries are stored
as they are and mapped into memory; entries that were compressed afterwards are unpacked. The older format: five
pickles (magic number, version, system, the object, keys of storages), then the storages, each behind its length.
"""

from __future__ import annotations

import io
import mmap
import pickle
import sys
import zipfile
import zlib
from typing import Any

import torch

from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights.budget import Budget
from cvpods_ext.modeling.weights.restricted import RestrictedUnpickler
from cvpods_ext.modeling.weights.tensors import Storage, StorageId

LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number of torch < 1.6
ZIP_START = b"PK\x03\x04"
_MOST_DIRECTORY_BYTES = 16 << 20
_LOCAL_HEADER = 30  # bytes, before name and extra field
_ENCRYPTED = 1

Buffer = mmap.mmap | bytearray


def load(data: Buffer, budget: Budget, copy: bool = False) -> Any:
    """The object that was saved, from the start of `data`, which must be writable.

    Tensors of stored zip entries share memory with `data`, unless they are to be a `copy`.
    """
    if data[: len(ZIP_START)] == ZIP_START:
        return _ZipFile(data, budget, copy).load()
    return _load_legacy(data, budget)


# ---- the zip format -------------------------------------------------------------------------------------------------


class _ZipFile:
    def __init__(self, data: Buffer, budget: Budget, copy: bool) -> None:
        self._data, self._budget, self._copy = data, budget, copy
        self._entries = _directory(data)
        pickles = [name for name in self._entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise WeightsError("it is a zip file, but not one that torch.save wrote (no data.pkl)")
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}constants.pkl" in self._entries:
            raise WeightsError("it is a TorchScript program, not a file of weights. Save model.state_dict()")
        self._storages: dict[str, tuple[StorageId, Storage]] = {}

    def load(self) -> Any:
        order = f"{self._folder}byteorder"
        if order in self._entries and bytes(self._bytes(order)).decode("ascii").strip() != sys.byteorder:
            raise WeightsError(f"its numbers are not in the byte order of this machine ({sys.byteorder})")
        program = io.BytesIO(self._bytes(f"{self._folder}data.pkl"))
        return RestrictedUnpickler(program, self._budget, self._storage).load()

    def _storage(self, identity: Any) -> Storage:
        wanted = StorageId.of(identity)
        if wanted.key not in self._storages:
            raw = self._bytes(f"{self._folder}data/{wanted.key}")
            if len(raw) != wanted.nbytes:
                raise WeightsError(f"storage {wanted.key[:40]!r} has {len(raw):,} bytes instead of {wanted.nbytes:,}")
            values = torch.frombuffer(raw, dtype=wanted.dtype) if len(raw) else torch.empty(0, dtype=wanted.dtype)
            if self._copy:
                self._budget.spend(wanted.nbytes)
                values = values.clone()
            self._storages[wanted.key] = wanted, Storage(values)
        known, storage = self._storages[wanted.key]
        if known != wanted:
            raise WeightsError(f"it describes the storage {wanted.key[:40]!r} in two ways")
        return storage

    def _bytes(self, name: str) -> memoryview | bytearray:
        """The content of an entry: a part of the file, or what it unpacks to."""
        if name not in self._entries:
            raise WeightsError(f"its entry {name[:80]!r} is missing")
        entry = self._entries[name]
        start = _start_of(self._data, entry)
        part = memoryview(self._data)[start : start + entry.compress_size]
        if entry.compress_type == zipfile.ZIP_STORED:
            return part
        self._budget.spend(entry.file_size)
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        content = bytearray(unpacker.decompress(part, entry.file_size + 1))
        if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
            raise WeightsError(f"its entry {name[:80]!r} is damaged (its checksum differs)")
        return content


def _directory(data: Buffer) -> dict[str, zipfile.ZipInfo]:
    """The entries of a zip file by name; WeightsError if they overlap, or cannot be read in a bounded way."""
    with zipfile.ZipFile(_DirectoryReader(data)) as archive:  # type: ignore[arg-type]
        entries = archive.infolist()
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise WeightsError(f"its entry {entry.filename[:80]!r} is encrypted or packed in a way that is not read")
        if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
            raise WeightsError(f"its entry {entry.filename[:80]!r} has two sizes")
        start = _start_of(data, entry)
        if entry.header_offset < end or start + entry.compress_size > len(data):
            raise WeightsError(f"its entry {entry.filename[:80]!r} overlaps another one or the end of the file")
        end = start + entry.compress_size
    named = {entry.filename: entry for entry in entries}
    if len(named) != len(entries):
        raise WeightsError("two of its entries have the same name")
    return named


def _start_of(data: Buffer, entry: zipfile.ZipInfo) -> int:
    """Where the content of an entry begins."""
    header = data[entry.header_offset : entry.header_offset + _LOCAL_HEADER]
    if len(header) < _LOCAL_HEADER or header[:4] != ZIP_START:
        raise WeightsError(f"its entry {entry.filename[:80]!r} is damaged")
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return entry.header_offset + _LOCAL_HEADER + name + extra


class _DirectoryReader:
    """As much of a file as the directory of a zip needs; the directory itself is bounded."""

    def __init__(self, data: Buffer) -> None:
        self._data, self._at = data, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._data))[whence]
        if self._at < 0:
            raise OSError("a position before the file")
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int = -1) -> bytes:
        if count > _MOST_DIRECTORY_BYTES:
            raise WeightsError("the directory of its zip is larger than that of any file of weights")
        part = bytes(self._data[self._at : self._at + count if count >= 0 else self._at + _MOST_DIRECTORY_BYTES])
        self._at += len(part)
        return part


# ---- the format before 1.6 ------------------------------------------------------------------------------------------


def _load_legacy(data: Buffer, budget: Budget) -> Any:
    if data[: len(LEGACY_START)] != LEGACY_START:
        raise WeightsError("it is no file of torch.save")
    stream = data if isinstance(data, mmap.mmap) else io.BytesIO(data)
    storages: dict[str, tuple[StorageId, Storage]] = {}

    def storage(identity: Any) -> Storage:
        if isinstance(identity, tuple) and identity[:1] == ("module",):
            raise WeightsError("it holds a whole model as a Python object. Save model.state_dict()")
        wanted = StorageId.of(identity)
        if len(identity) > 5 and identity[5] is not None:
            raise WeightsError("it holds a storage that is a part of another one. Save it again with a newer torch")
        if wanted.key not in storages:
            if wanted.nbytes > len(data):
                raise WeightsError(f"a storage of {wanted.nbytes:,} bytes does not fit into the file")
            budget.spend(wanted.nbytes)
            storages[wanted.key] = wanted, Storage(torch.zeros(wanted.count, dtype=wanted.dtype))
        known, found = storages[wanted.key]
        if known != wanted:
            raise WeightsError(f"it describes the storage {wanted.key[:40]!r} in two ways")
        return found

    _, _, system = (RestrictedUnpickler(stream, budget).load() for _ in range(3))
    if isinstance(system, dict) and system.get("little_endian", True) != (sys.byteorder == "little"):
        raise WeightsError(f"its numbers are not in the byte order of this machine ({sys.byteorder})")
    content = RestrictedUnpickler(stream, budget, storage).load()
    keys = RestrictedUnpickler(stream, budget).load()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise WeightsError("the storages that it holds are not those that its tensors need")
    for key in keys:
        known, found = storages[key]
        count = int.from_bytes(stream.read(8), "little")
        raw = stream.read(known.nbytes)
        if count != known.count or len(raw) != known.nbytes:
            raise pickle.UnpicklingError("truncated: the storages end too early")
        if raw:
            found.values.copy_(torch.frombuffer(bytearray(raw), dtype=known.dtype))
    return content
