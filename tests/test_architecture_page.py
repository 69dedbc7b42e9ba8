"""The architecture page says what the code says, and names files that exist."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_generated_parts_are_up_to_date():
    command = [sys.executable, str(ROOT / "tools" / "write_architecture.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_every_file_of_the_table_exists():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("## Which file do I change")[1].split("## Layers")[0]
    names = re.findall(r"`([\w./-]+(?:/|\.py|\.json|\.md))`", table)
    assert len(names) > 20
    for name in names:
        pattern = name.removeprefix("cvpods_ext/").rstrip("/")
        assert (ROOT / name).exists() or list((ROOT / "cvpods_ext").rglob(pattern)), name
