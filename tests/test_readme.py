"""What the README shows is what a command wrote, and the commands that it names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_demo_table_is_the_one_that_was_measured():
    block = re.search(r"<!-- demo:begin[^\n]*-->\n(.*?)<!-- demo:end -->", README, re.S)
    assert block
    assert block[1].strip() == (ROOT / "benchmarks/demo/table.md").read_text(encoding="utf-8").strip()


def test_every_command_and_make_target_of_the_readme_exists():
    scripts = set(re.findall(r"^(pods_\w+) =", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"\bpods_[a-z]+\b", README)) <= scripts
    assert set(re.findall(r"\bmake ([\w-]+)", README)) <= targets


def test_every_file_that_the_readme_names_exists():
    for name in re.findall(r"`((?:docs|datasets|playground)/[\w./-]+)`|\]\(([\w./-]+)\)", README):
        path = next(part for part in name if part)
        assert (ROOT / path).exists(), path
