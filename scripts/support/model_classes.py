"""What was decided about each of SGLang's model classes: the data file and the docs' table."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from support import token_id_uses
from support.model_sources import Sources

DOCS = Path(__file__).parents[2] / "docs"
DATA = DOCS / "model-classes.json"
DOCUMENT = DOCS / "models.md"
START = "<!-- table: scripts/survey_models.py --write -->"
END = "<!-- end of survey -->"

WORKS, REFUSED, DEPENDS = "works", "refused", "by configuration"
NOT_TEXT = "not a text generator"
VERDICTS = (WORKS, DEPENDS, REFUSED, NOT_TEXT)
EVIDENCE = ("engine", "built", "read")
ROLE = "role"
"""Evidence of a class that is no text generator: what it is for."""
_HEADER = ("module", "class", "verdict", "why", "evidence")


@dataclass
class Decision:
    """What was decided about a class."""

    module: str
    """Below ``sglang.srt.models``."""
    verdict: str
    reason: str
    evidence: str


@dataclass
class Use:
    """What was decided about a function that uses token ids."""

    why: str
    """Why a concept is fed right all the same, or is refused where it is not."""
    fingerprints: list[str]
    """Of its uses, in all the versions that were read."""


@dataclass
class Decisions:
    """The data file."""

    versions: list[str]
    classes: dict[str, Decision]
    uses: dict[str, Use]

    @classmethod
    def load(cls) -> "Decisions":
        data = json.loads(DATA.read_text())
        return cls(
            versions=data["versions"],
            classes={name: Decision(**fields) for name, fields in data["classes"].items()},
            uses={name: Use(**fields) for name, fields in data["uses"].items()},
        )

    def save(self) -> None:
        self.classes = dict(
            sorted(self.classes.items(), key=lambda item: (item[1].module, item[0]))
        )
        self.uses = dict(sorted(self.uses.items()))
        DATA.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    def feeds(self, name: str) -> bool:
        """Whether some model of a class is fed concepts."""
        return name in self.classes and self.classes[name].verdict in (WORKS, DEPENDS)

    def unreviewed(self, found: Mapping[str, str]) -> dict[str, str]:
        """The functions, with fingerprints, that nobody has judged in this form."""
        return {
            where: fingerprint
            for where, fingerprint in found.items()
            if where not in self.uses or fingerprint not in self.uses[where].fingerprints
        }

    def accept(self, found: Mapping[str, str]) -> None:
        """Take functions as judged; the reason of a new one has to be written by hand."""
        for where, fingerprint in self.unreviewed(found).items():
            self.uses.setdefault(where, Use("", [])).fingerprints.append(fingerprint)

    def table(self) -> str:
        """The counts and the table of the document."""
        counts = Counter(decision.verdict for decision in self.classes.values())
        known = Counter(
            decision.evidence for decision in self.classes.values() if decision.verdict != NOT_TEXT
        )
        lines = [
            f"{len(self.classes)} classes of SGLang {', '.join(self.versions)}: "
            + ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
            + ". Of those that generate text, "
            + ", ".join(f"{known[evidence]} {evidence}" for evidence in EVIDENCE)
            + ".",
            "",
            *(f"| {' | '.join(row)} |" for row in (_HEADER, ("---",) * len(_HEADER))),
            *(
                f"| {d.module} | `{name}` | {d.verdict} | {d.reason} | {d.evidence} |"
                for name, d in self.classes.items()
            ),
        ]
        return "\n".join(lines)


def uses_of(sources: Sources, decisions: Decisions) -> dict[str, str]:
    """The functions with uses of token ids that a class which is fed concepts may run."""
    found = token_id_uses.in_layers(sources)
    for name, module in sources.entry_classes().items():
        if decisions.feeds(name):
            for reached in sources.reachable(module, name):
                found |= token_id_uses.fingerprints(sources, reached)
    return found


def written_table() -> str:
    """What stands between the marks of the document."""
    return _parts()[1].strip()


def write_table(table: str) -> None:
    before, _, after = _parts()
    DOCUMENT.write_text(f"{before}{START}\n\n{table}\n\n{END}{after}")


def _parts() -> tuple[str, str, str]:
    before, start, rest = DOCUMENT.read_text().partition(START)
    table, end, after = rest.partition(END)
    assert start and end, f"{DOCUMENT.name} has no marks for the survey"
    return before, table, after
