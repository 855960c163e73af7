"""The source of a function in SGLang's files, found without importing or installing them."""

import ast
import hashlib
import inspect
import io
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

Tree = Path | zipfile.Path
"""The folder, or the opened wheel, that has the folder ``sglang``."""

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def source_of(tree: Tree, target: str) -> str | None:
    """The lines of a function as :func:`inspect.getsource` gives them, decorators included.

    None: there is no such function. What a class inherits and a module imports is not looked up.

    Raises:
        SyntaxError: the file is for a newer Python than this one.
    """
    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        path = "/".join(parts[:end])
        for name in (f"{path}/__init__.py", f"{path}.py"):
            file = tree.joinpath(name)
            if file.is_file():
                return _definition(file.read_text(encoding="utf-8"), parts[end:])
    return None


def fingerprint(source: str) -> str:
    """What the record of a review has instead of the source."""
    return hashlib.sha256(source.encode()).hexdigest()[:16]


_parse = lru_cache(maxsize=4)(ast.parse)  # neighbouring patches are often of one file


def _definition(text: str, names: list[str]) -> str | None:
    body = _parse(text).body
    for name in names:
        # the last one is what the name means, after typing.overload for instance
        found = [each for each in _definitions(body) if each.name == name]
        if not found:
            return None
        last = found[-1]
        body = last.body if isinstance(last, ast.ClassDef) else []
    first = min(part.lineno for part in (last, *last.decorator_list))
    # unlike str.splitlines, this keeps to the line ends that Python's parser counts; the last line
    # gets one if it has none, as inspect reads it
    lines = io.StringIO(text + "\n").readlines()
    return "".join(inspect.getblock(lines[first - 1 :]))


def _definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """The functions and classes of a module or class, also those under an if, try or with."""
    for statement in body:
        if isinstance(statement, Definition):
            yield statement
            continue
        for part in ("body", "handlers", "orelse", "finalbody"):
            yield from _definitions(getattr(statement, part, []))
