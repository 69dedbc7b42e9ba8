"""Walk a large JSON file without holding it: arrays are given out element by element, in bounded memory.

Plain and gzip files, with or without a byte order mark. Whatever is wrong with one is a DataError that says where.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterator
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any, BinaryIO

from cvpods_ext.errors import DataError

CHUNK_BYTES = 1 << 20
# A failure this close to the end of what was read may be a token cut in half ("-Infinity", "\u00e9").
_TOKEN_CHARACTERS = 32
LONGEST_VALUE = 1 << 27  # characters of one value; more without an end is damage
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_NOT_SPACE = re.compile(r"[^ \t\n\r]")


class _Counted(io.RawIOBase):
    """A file whose bytes are hashed and counted while they are read, in front of whatever unpacks them."""

    def __init__(self, file: BinaryIO, on_bytes: Callable[[int], None] | None) -> None:
        self._file, self._on_bytes = file, on_bytes
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.digest.update(data)
        if self._on_bytes and data:
            self._on_bytes(len(data))
        return len(data)


class JsonStream:
    """One pass over a JSON file; the sha256 of its bytes, as they lie on disk, is known at the end.

    `on_bytes` receives how many bytes were read, for a progress bar.
    """

    def __init__(self, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        self.path = path
        self._on_bytes = on_bytes
        self._decode = json.JSONDecoder().raw_decode
        self._counted: _Counted | None = None
        self._text = ""
        self._at = 0
        self._ended = False
        self._dropped = 0  # characters before _text, for messages

    @property
    def sha256(self) -> str:
        """Digest of the whole file, once it was read to its end."""
        assert self._ended, "the file has not been read to its end"
        assert self._counted is not None, "the file has not been opened"
        return self._counted.digest.hexdigest()

    def elements(self, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
        """Yield (key, element) for every element of the arrays `wanted` of a top-level object, in their order.

        Null is an array without elements; other values under these keys are a DataError, other keys are passed over.
        """
        yield from self._guarded(lambda: self._object(wanted))

    def items(self) -> Iterator[Any]:
        """Yield every element of a file whose top level is an array."""
        yield from self._guarded(self._top_level_array)

    def _guarded(self, walk: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        try:
            with open(self.path, "rb") as file:
                start = file.peek(4)[:4]
                if start.startswith(_ZIP):
                    raise DataError(f"{self.path} is a zip archive: unpack it first")
                self._counted = _Counted(file, self._on_bytes)
                buffered = io.BufferedReader(self._counted, CHUNK_BYTES)
                source: io.BufferedIOBase = gzip.GzipFile(fileobj=buffered) if start.startswith(_GZIP) else buffered
                self._source = self._chunks(source)
                yield from walk()
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{self.path} is a damaged gzip file ({error}); repeat the download or the copy") from error
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path} is not text in UTF-8 ({error.reason}): save it as UTF-8, or unpack it"
            ) from error

    def _chunks(self, file: io.BufferedIOBase) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        while data := file.read(CHUNK_BYTES):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)

    def _object(self, wanted: Collection[str]) -> Iterator[tuple[str, Any]]:
        if self._peek() == "[":
            raise DataError(f"{self.path} holds a list, not images and categories: is it a results json?")
        self._expect("{")
        separator = self._expect("}") if self._peek() == "}" else ","
        while separator == ",":
            key = self._value()
            if not isinstance(key, str):
                raise self._malformed("a key in quotes was expected")
            self._expect(":")
            if self._peek() == "[":
                for element in self._array():
                    if key in wanted:
                        yield key, element
            else:
                value = self._value()
                if key in wanted and value is not None:
                    raise DataError(f"{self.path}: '{key}' is {_kind(value)}, not a list")
            separator = self._expect(",}")
        self._end("object")

    def _top_level_array(self) -> Iterator[Any]:
        if self._peek() not in ("[", ""):
            raise DataError(f"{self.path} does not hold a list; it starts with {self._text[:40]!r}")
        yield from self._array()
        self._end("list")

    def _end(self, what: str) -> None:
        if self._peek():
            raise self._malformed(f"more text follows the end of the {what}")

    def _array(self) -> Iterator[Any]:
        self._expect("[")
        if self._peek() == "]":
            self._expect("]")
            return
        separator = ","
        while separator == ",":
            yield self._value()
            separator = self._expect(",]")

    def _expect(self, allowed: str) -> str:
        """Consume the next character, which must be one of `allowed`."""
        character = self._peek()
        if not character:
            raise self._truncated()
        if character not in allowed:
            raise self._malformed(f"'{character}' where one of '{allowed}' was expected")
        self._at += 1
        return character

    def _peek(self) -> str:
        """The next character that is not white space, left in place; "" at the end of the file."""
        while True:
            found = _NOT_SPACE.search(self._text, self._at)
            if found:
                self._at = found.start()
                return found.group()
            self._at = len(self._text)
            if not self._read(1):
                return ""

    def _value(self) -> Any:
        """Decode one value; reads on while the value may continue beyond what was read."""
        if not self._peek():
            raise self._truncated()
        chunks = 1
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                # A number may have been cut in half: "12", "1." and "1e" all continue.
                if self._ended or self._text[end : end + 1] not in ("", ".", "e", "E"):
                    self._at = end
                    return value
            except JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated string")
                if not unfinished and error.pos < len(self._text) - _TOKEN_CHARACTERS:
                    raise self._malformed(error.msg, error.pos) from None
                if self._ended:
                    raise self._truncated() from None
            except ValueError as error:
                raise self._malformed(str(error).split(";")[0]) from None  # an integer of thousands of digits
            except RecursionError:
                raise self._malformed("values are nested too deeply") from None
            if len(self._text) - self._at > LONGEST_VALUE:
                raise self._malformed(f"a value of more than {LONGEST_VALUE:,} characters")
            self._read(chunks)
            chunks *= 2  # so that a huge value is not decoded again for every chunk

    def _read(self, chunks: int) -> bool:
        """Append up to so many chunks; False at the end of the file."""
        self._dropped += self._at
        parts = [self._text[self._at :]]
        self._at = 0
        for _ in range(chunks):
            chunk = next(self._source, None)
            if chunk is None:
                self._ended = True
                break
            parts.append(chunk)
        self._text = "".join(parts)
        return not self._ended

    def _truncated(self) -> DataError:
        if self._dropped + len(self._text) == 0:
            return DataError(f"{self.path} is empty; download it again")
        return DataError(
            f"{self.path} ends in the middle of the data, at character {self._dropped + len(self._text)}; "
            "the download or the copy was cut off: repeat it"
        )

    def _malformed(self, reason: str, position: int | None = None) -> DataError:
        at = self._at if position is None else position
        excerpt = self._text[max(0, at - 20) : at + 20].replace("\n", " ")
        return DataError(f"{self.path} is not valid JSON at character {self._dropped + at}: {reason}, near {excerpt!r}")


def _kind(value: Any) -> str:
    """The type of a JSON value, in its own words."""
    words = {dict: "an object", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return words.get(type(value), "something else")
