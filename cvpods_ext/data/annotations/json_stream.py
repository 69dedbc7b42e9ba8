"""Walk a large JSON object without holding it: arrays are given out element by element, in bounded memory."""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any, BinaryIO

from cvpods_ext.errors import DataError

CHUNK_BYTES = 1 << 20
# A failure this close to the end of what was read may be a token cut in half ("-Infinity", "\u00e9").
_TOKEN_CHARACTERS = 32
_NOT_SPACE = re.compile(r"[^ \t\n\r]")


class JsonStream:
    """One pass over a file whose top level is an object; the sha256 of its bytes is known at the end.

    `on_bytes` is told how many bytes were read, for a progress bar.
    """

    def __init__(self, path: Path, on_bytes: Callable[[int], None] | None = None) -> None:
        self.path = path
        self._on_bytes = on_bytes
        self._decode = json.JSONDecoder().raw_decode
        self._digest = hashlib.sha256()
        self._text = ""
        self._at = 0
        self._ended = False
        self._dropped = 0  # characters before _text, for messages

    @property
    def sha256(self) -> str:
        """Digest of the whole file, once `items` is exhausted."""
        assert self._ended, "the file has not been read to its end"
        return self._digest.hexdigest()

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield (key, element) for every element of a top-level array and (key, value) for any other value.

        An empty array yields nothing. DataError says where the text stops being JSON.
        """
        try:
            with open(self.path, "rb") as file:
                self._source = self._chunks(file)
                yield from self._object()
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path} is not JSON text ({error.reason}); is it still compressed?") from error

    def _chunks(self, file: BinaryIO) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        while data := file.read(CHUNK_BYTES):
            self._digest.update(data)
            if self._on_bytes:
                self._on_bytes(len(data))
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)

    def _object(self) -> Iterator[tuple[str, Any]]:
        self._expect("{")
        separator = self._expect("}") if self._peek() == "}" else ","
        while separator == ",":
            key = self._value()
            if not isinstance(key, str):
                raise self._malformed("a key in quotes was expected")
            self._expect(":")
            if self._peek() == "[":
                for element in self._array():
                    yield key, element
            else:
                yield key, self._value()
            separator = self._expect(",}")
        if self._peek():
            raise self._malformed("more text follows the end of the object")

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
            except RecursionError:
                raise self._malformed("values are nested too deeply") from None
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
