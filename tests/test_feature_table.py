"""The table of features in the docs: nothing in it that no test backs, and no test left out."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "features.md"
RESULTS = {"equal", "refused", "works"}
_ROW = re.compile(
    r"^\| (?P<feature>[^|]+) \| (?P<how>[^|]+) \| (?P<result>[^|]+) \| (?P<tests>[^|]+) \|$"
)
_NODE = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`")


def _rows() -> list[dict[str, str]]:
    found = [
        match.groupdict() for line in TABLE.read_text().splitlines() if (match := _ROW.match(line))
    ]
    heads = {"feature", "mode"}
    return [r for r in found if r["feature"] not in heads and set(r["feature"]) != {"-"}]


def _functions(path: Path) -> set[str]:
    """Names of a module's tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


ROWS = _rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["feature"])
def test_a_row_is_backed_by_tests(row):
    assert row["result"] in RESULTS
    nodes = _NODE.findall(row["tests"])
    assert nodes, "no test is named"
    for file, function in nodes:
        functions = _functions(ROOT / "tests" / file)
        assert functions, f"{file} has no tests"
        assert not function or function in functions, f"{file} has no {function}"


def test_every_test_of_the_engine_and_the_server_is_in_the_table():
    named = {file for row in ROWS for file, _ in _NODE.findall(row["tests"])}
    folders = [ROOT / "tests" / folder for folder in ("engine", "server", "operations")]
    existing = {
        str(path.relative_to(ROOT / "tests")) for f in folders for path in f.rglob("test_*.py")
    }
    assert existing - named == set()
