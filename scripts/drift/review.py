"""Which source the hooks were reviewed against: fingerprints by version of SGLang and target."""

import json
from collections.abc import Iterable
from pathlib import Path

from packaging.version import Version

from drift.source import fingerprint

FILE = Path(__file__).resolve().parents[1] / "fingerprints.json"


class Reviews:
    """The reviews so far."""

    def __init__(self, file: Path = FILE) -> None:
        self.file = file
        self._known: dict[str, dict[str, str]] = json.loads(file.read_text())

    def base_of(self, version: str) -> str:
        """The version that one is compared with: itself, or else the newest reviewed one before it.

        For one that is older than all of them it is the oldest; without any review, itself.
        """
        versions = sorted(self._known, key=Version)
        before = [known for known in versions if Version(known) <= Version(version)]
        return (before[-1:] or versions[:1] or [version])[0]

    def state_of(self, target: str, base: str, source: str | None) -> str:
        """Of a function's source against the reviewed version ``base``.

        ``same``, ``changed``, ``gone`` (no source) or ``new`` (this target was never reviewed).
        """
        if source is None:
            return "gone"
        reviewed = self._known.get(base, {}).get(target)
        if reviewed is None:
            return "new"
        return "same" if reviewed == fingerprint(source) else "changed"

    def record(self, version: str, sources: Iterable[tuple[str, str]]) -> None:
        """Write the review of one version: its targets and their sources."""
        self._known[version] = {target: fingerprint(source) for target, source in sorted(sources)}
        ordered = {known: self._known[known] for known in sorted(self._known, key=Version)}
        self.file.write_text(json.dumps(ordered, indent=2) + "\n")
