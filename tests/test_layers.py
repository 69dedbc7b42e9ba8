"""The map of docs/architecture.md holds: imports point one way, and nothing happens at import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "cvpods_ext"
BASICS = {"errors", "config", "runtime", "structures"}
MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "runtime": {"errors"},
    "structures": {"errors"},
    "data": BASICS,
    "modeling": BASICS,
    "evaluation": BASICS | {"data"},
    "tasks": BASICS | {"data", "modeling", "evaluation"},
    "engine": BASICS | {"data", "modeling", "evaluation", "tasks"},
    "report": {"errors", "config", "runtime", "evaluation", "structures", "tasks"},
    "cli": BASICS | {"data", "modeling", "evaluation", "tasks", "engine", "report"},
}
COMMANDS = ("train", "test", "compare", "status", "debug", "env", "report", "data", "weights", "demo", "zoo")


def layers_imported_by(path: Path) -> set[str]:
    """Layers that a file imports, lazily or not."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("cvpods_ext.")} & set(MAY_IMPORT)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    relative = path.relative_to(PACKAGE)
    layer = relative.parts[0].removesuffix(".py")
    if layer == "__init__":
        return
    forbidden = layers_imported_by(path) - MAY_IMPORT[layer] - {layer}
    assert not forbidden, f"{relative} must not import {sorted(forbidden)}"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_does_not_import_torch_and_ends_in_examples(command):
    code = (
        f"import sys\nsys.argv = ['pods_{command}', '--help']\n"
        f"from cvpods_ext.cli.{command} import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    examples = run.stdout.split("examples:")[1]
    assert f"pods_{command}" in examples
