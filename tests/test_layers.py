"""The map of docs/architecture.md holds: imports point one way, and nothing happens at import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from cvpods_ext.tasks.task import known_tasks

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
    "compat": BASICS | {"data", "modeling", "evaluation", "tasks", "engine"},
    "cli": BASICS | {"data", "modeling", "evaluation", "tasks", "engine", "report"},
}
COMMANDS = (
    "train",
    "test",
    "predict",
    "import_folder",
    "new",
    "sweep",
    "compare",
    "status",
    "debug",
    "env",
    "report",
    "data",
    "weights",
    "demo",
    "zoo",
)


# Of a layer that may be used, all that may be used.
ONLY = {("report", "tasks"): {"cvpods_ext.tasks.task", "cvpods_ext.tasks.drawing"}}
FILES = sorted(PACKAGE.rglob("*.py"))
KNOW_NO_TASK = [
    *sorted((PACKAGE / "engine").rglob("*.py")),
    *(PACKAGE / "cli" / f"{name}.py" for name in ("train", "test", "predict", "debug", "common")),
]


def module_of(path: Path) -> str:
    """Dotted name of a file of the package."""
    parts = ("cvpods_ext", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in FILES}


def imported_by(path: Path, for_types: bool = True) -> set[str]:
    """Modules of the package that a file imports anywhere, with or without those for annotations only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    skipped = set() if for_types else {id(node) for guard in guards for node in ast.walk(guard)}
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module
                for alias in node.names
            }
    return names & MODULES


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    relative = path.relative_to(PACKAGE)
    layer = relative.parts[0].removesuffix(".py")
    if layer == "__init__":
        return
    for module in imported_by(path):
        other = module.split(".")[1] if "." in module else None
        if other in MAY_IMPORT and other != layer:
            assert other in MAY_IMPORT[layer], f"{relative} must not import {module}"
            assert module in ONLY.get((layer, other), {module}), f"{relative} must not import {module}"


@pytest.mark.parametrize("path", KNOW_NO_TASK, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_engine_and_the_commands_of_a_run_import_nothing_of_one_task(path):
    for module in imported_by(path):
        parts = module.split(".")[1:]
        of_a_task = [part for part in parts if part.startswith(tuple(known_tasks()))]
        assert not of_a_task, f"{module} belongs to a task"
        assert parts[:2] not in (["data", "annotations"], ["data", "catalog"]), f"{module} is for annotation files"


def test_no_files_import_each_other_in_a_circle():
    imports = {module_of(path): imported_by(path, for_types=False) - {module_of(path)} for path in FILES}
    while leaves := {module for module, others in imports.items() if not others}:
        imports = {module: others - leaves for module, others in imports.items() if module not in leaves}
    assert not imports, f"import circle among {sorted(imports)}, or on the way to one"


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
    assert f"pods_{command.partition('_')[0]}" in examples


def test_no_two_test_files_share_a_name():
    """Pytest imports them by their bare names, so that the second of two would not be collected."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
