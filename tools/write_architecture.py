"""Write the generated parts of docs/architecture.md: layers, file map, task contract, an example of results.json.

Everything between `<!-- NAME:begin -->` and `<!-- NAME:end -->` comes from the code and from a committed result.

    python tools/write_architecture.py           write the page
    python tools/write_architecture.py --check   exit with status 1 if it is not up to date
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "cvpods_ext"
PAGE = ROOT / "docs" / "architecture.md"
LAYERS = (
    "errors",
    "config",
    "runtime",
    "structures",
    "data",
    "modeling",
    "evaluation",
    "tasks",
    "engine",
    "report",
    "compat",
    "cli",
)
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", paragraph)[0].rstrip(".")


def layers() -> str:
    """Which layer may import which, as the layer test holds it."""
    from test_layers import MAY_IMPORT

    rows = ["| layer | what it is | may import |", "|---|---|---|"]
    for name in LAYERS:
        path = PACKAGE / name / "__init__.py"
        what = first_sentence(path if path.exists() else PACKAGE / f"{name}.py")
        allowed = ", ".join(f"`{other}`" for other in LAYERS if other in MAY_IMPORT[name]) or "nothing"
        rows.append(f"| `{name}` | {what} | {allowed} |")
    return "\n".join(rows)


def files() -> str:
    """Every file of the package with the first sentence of its docstring, folder by folder."""
    lines = []
    for name in LAYERS:
        for folder in sorted(path.parent for path in (PACKAGE / name).rglob("__init__.py")):
            lines += [f"### `{folder.relative_to(PACKAGE).as_posix()}/`", ""]
            modules = sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")
            lines += [f"* `{path.name}` {first_sentence(path)}" for path in modules] + [""]
    return "\n".join(lines).rstrip()


def contract() -> str:
    """The methods of a task and of its predictions, with the first sentence of each."""
    from cvpods_ext.tasks.task import Predictions, Task

    lines = []
    for kind in (Task, Predictions):
        lines += [f"**`{kind.__name__}`**: {_sentence(kind)}.", "", "| method | what it gives |", "|---|---|"]
        for name, member in vars(kind).items():
            if inspect.isfunction(member) and not name.startswith("_"):
                arguments = ", ".join(list(inspect.signature(member).parameters)[1:])
                needed = "" if getattr(member, "__isabstractmethod__", False) else " (optional)"
                lines.append(f"| `{name}({arguments})`{needed} | {_sentence(member)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _sentence(described: object) -> str:
    text = " ".join((inspect.getdoc(described) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", text)[0].rstrip(".")


def result() -> str:
    """A committed result of a mini experiment, with long values shortened."""
    path = sorted((ROOT / "playground" / "mini").rglob("seed0/results.json"))[0]
    content = json.loads(path.read_text(encoding="utf-8"))
    text = re.sub(r'"([0-9a-f]{12})[0-9a-f]{28,}"', r'"\1..."', json.dumps(content, indent=1))
    text = re.sub(r"(\d+\.\d\d)\d{6,}", r"\1", text)
    compact = re.sub(r"\n\s{3,}", " ", text).replace("{ ", "{").replace("[ ", "[")
    compact = re.sub(r"\n\s{2}([}\]])", r"\1", compact)
    wrapped = "\n".join(line for one in compact.splitlines() for line in _wrap(one))
    return f"`{path.relative_to(ROOT).as_posix()}`:\n\n```json\n{wrapped}\n```"


def _wrap(line: str, width: int = 116) -> list[str]:
    """Break a line of JSON at commas."""
    lines = []
    while len(line) > width and (cut := line.rfind(", ", 0, width)) > 0:
        lines.append(line[: cut + 1])
        line = "   " + line[cut + 2 :]
    return [*lines, line]


PARTS = {"layers": layers, "files": files, "contract": contract, "result": result}


def render(text: str) -> str:
    """The page with every generated part as it is now."""
    for name, make in PARTS.items():
        begin, end = f"<!-- {name}:begin (tools/write_architecture.py) -->", f"<!-- {name}:end -->"
        assert text.count(begin) == text.count(end) == 1, f"{PAGE} needs {begin} and {end} once each"
        head, rest = text.split(begin)
        text = f"{head}{begin}\n{make()}\n{end}{rest.split(end)[1]}"
    return text


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    old = PAGE.read_text(encoding="utf-8")
    new = render(old)
    if old == new:
        return 0
    if options.check:
        print("docs/architecture.md is not what the code says: run python tools/write_architecture.py", file=sys.stderr)
        return 1
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
