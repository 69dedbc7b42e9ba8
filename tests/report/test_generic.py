"""Generic files of the report name no task, no family and no metric: these come from the task's metric table."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "cvpods_ext"
GENERIC = [
    *sorted((PACKAGE / "report").glob("*.py")),
    PACKAGE / "cli" / "compare.py",
    PACKAGE / "evaluation" / "results.py",
]
FORBIDDEN = {"bbox", "segm", "boundary", "AP", "APr", "APc", "APf", "mIoU", "top1", "detection", "segmentation"}
# results.json of the time when there was one task do not name it
ALLOWED = {("runs.py", "detection"), ("results.py", "detection")}


@pytest.mark.parametrize("path", GENERIC, ids=lambda path: path.name)
def test_generic_files_name_no_task_and_no_metric(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    modules = {part for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for part in node.module.split(".")}
    named = {(path.name, word) for word in (texts | modules) & FORBIDDEN}
    assert not named - ALLOWED
