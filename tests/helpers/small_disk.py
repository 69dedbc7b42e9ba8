"""A file system that is nearly full, where this process may mount one."""

import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def small_disk(folder: Path, size: str = "2m"):
    """A file system of `size` at `folder`; yields False where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = (
        shutil.which("mount") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Take all the space that is left."""
    with open(folder / "junk", "wb", buffering=0) as junk, suppress(OSError):
        while True:
            junk.write(b"\0" * 4096)
