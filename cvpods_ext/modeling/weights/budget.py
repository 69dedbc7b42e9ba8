"""How much memory a file may make its reader use: a small multiple of its own size."""

from __future__ import annotations

from cvpods_ext.errors import WeightsError

_TIMES_THE_FILE = 4
_ALWAYS = 64 << 20


class Budget:
    """Bytes that may still be allocated for the content of one file; what is shared is counted once."""

    def __init__(self, file_bytes: int) -> None:
        self._left = _TIMES_THE_FILE * file_bytes + _ALWAYS
        self._file_bytes = file_bytes

    def spend(self, count: int) -> None:
        """Account for `count` bytes before they are allocated; WeightsError if that is more than the file is worth."""
        self._left -= count
        if self._left < 0:
            raise WeightsError(
                f"it has {self._file_bytes:,} bytes and asks for more than {_TIMES_THE_FILE} times as much memory. "
                "No program that saves weights writes such a file"
            )
