"""What the README shows is what a command wrote, and the commands that it names exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "name", "file"),
    [
        ("README.md", "demo", "demo/table.md"),
        ("docs/zoo.md", "zoo", "zoo/table.md"),
        ("docs/classification.md", "classification_mini", "classification_mini/table.md"),
        ("docs/segmentation.md", "segmentation_mini", "segmentation_mini/table.md"),
        ("docs/eva02.md", "mini", "eva02_mini/table.md"),
        ("docs/eva02.md", "speed", "eva02_speed.md"),
    ],
)
def test_the_table_of_a_page_is_the_one_that_was_measured(page, name, file):
    text = (ROOT / page).read_text(encoding="utf-8")
    block = re.search(rf"<!-- {name}:begin[^\n]*-->\n(.*?)<!-- {name}:end -->", text, re.S)
    assert block
    assert block[1].strip() == (ROOT / "benchmarks" / file).read_text(encoding="utf-8").strip()


def test_every_command_and_make_target_of_the_readme_exists():
    scripts = set(re.findall(r"^(pods_\w+) =", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M))
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"\bpods_[a-z]+\b", README)) <= scripts
    assert set(re.findall(r"\bmake ([\w-]+)", README)) <= targets


def test_every_file_that_the_readme_names_exists():
    for name in re.findall(r"`((?:docs|datasets|playground)/[\w./-]+)`|\]\(([\w./-]+)\)", README):
        path = next(part for part in name if part)
        assert (ROOT / path).exists(), path
