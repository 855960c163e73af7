"""The table of tested architectures in docs/models.md, generated from the test's results."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

DOCUMENT = Path(__file__).parent.parent / "docs" / "models.md"
START = "<!-- table: pytest tests/engine/test_architectures.py --write-model-table -->"
END = "<!-- end of table -->"

HEADER = (
    "architecture",
    "SGLang's class",
    "kind",
    "head",
    "special",
    "tokens equal",
    "largest error of a weight",
)


class Row(NamedTuple):
    """What one architecture's test saw."""

    architecture: str
    model_class: str
    kind: str
    head: str
    special: str
    tokens: int
    error: float

    def cells(self) -> tuple[str, ...]:
        """As in the document: errors are rounded up to a power of ten, so that they are stable."""
        bound = f"< 1e{math.floor(math.log10(self.error)) + 1}"
        return (
            self.architecture,
            f"`{self.model_class}`",
            self.kind,
            self.head,
            self.special,
            f"all {self.tokens}",
            bound,
        )


@dataclass
class ModelTable:
    """Rows, collected as the tests pass."""

    rows: list[Row] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def write(self, architectures: Sequence[str]) -> None:
        """Put the table into the document.

        Raises:
            ValueError: an architecture is missing, since its test failed or was not run.
        """
        missing = set(architectures) - {row.architecture for row in self.rows}
        if missing:
            raise ValueError(f"the model table needs every architecture; missing: {missing}")
        lines = [HEADER, ("---",) * len(HEADER), *(row.cells() for row in self.rows)]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        before, _, after = _parts()
        DOCUMENT.write_text(f"{before}{START}\n\n{table}\n\n{END}{after}")


def written() -> list[tuple[str, ...]]:
    """The cells of the document's table, without its header."""
    lines = [line for line in _parts()[1].splitlines() if line.startswith("|")]
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    assert rows[0] == HEADER
    return rows[2:]


def _parts() -> tuple[str, str, str]:
    """What stands before the table, the table, and what stands after it."""
    before, _, rest = DOCUMENT.read_text().partition(START)
    table, end, after = rest.partition(END)
    assert end, f"{DOCUMENT.name} has no table"
    return before, table, after
