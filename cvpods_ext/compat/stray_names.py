"""Statements that are nothing but an unknown name, left over in a published file, are taken out before it runs."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any


def stray_names(tree: ast.AST) -> Iterator[ast.Expr]:
    """Statements that consist of a bare name which the file never binds: they could only end in a NameError."""
    known = set(dir(builtins)) | {"__file__", "__name__"}
    for node in ast.walk(tree):
        known |= set(_bound(node))
    if "*" in known:  # what such an import brings is not known
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Name) and node.value.id not in known:
            yield node


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that this node alone binds."""
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0]
    elif isinstance(node, ast.Global | ast.Nonlocal):
        yield from node.names
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name


def describe(path: Path, root: Path) -> list[str]:
    """One line for each stray name of a file."""
    try:
        tree = ast.parse(path.read_bytes())  # honours what the file says of its encoding
    except (SyntaxError, ValueError, OSError):
        return []  # the import says it better
    return [
        f"{path.relative_to(root)}:{node.lineno}: the name {ast.unparse(node)!r} stands alone and is not defined; "
        "it is left out"
        for node in stray_names(tree)
    ]


class TolerantLoader(SourceFileLoader):
    """Compiles a file without its stray names; the file stays as it is, and no bytecode is written beside it."""

    def get_code(self, fullname: str) -> CodeType | None:
        """Always from the source, since a cached file may hold the names."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)

    def source_to_code(self, data: Any, path: Any, *args: Any, **options: Any) -> CodeType:
        """Compile `data` without its stray names."""
        tree = ast.parse(data, filename=str(path))
        stray = {id(node) for node in stray_names(tree)}
        return compile(_Passes(stray).visit(tree), path, "exec", dont_inherit=True)


class _Passes(ast.NodeTransformer):
    """Puts `pass` where a stray name was."""

    def __init__(self, stray: set[int]) -> None:
        self._stray = stray

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        return ast.copy_location(ast.Pass(), node) if id(node) in self._stray else node
