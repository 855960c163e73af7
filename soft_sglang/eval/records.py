"""The raw files of a run: what fixes it, and every answer, grade and time, as JSON lines.

A killed process may leave half a line at the end of a file; readers drop it, and :class:`Lines`
cuts it off before it appends.
"""

import json
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from soft_sglang.eval.errors import EvaluationError

FORMAT = 1
"""Version of these files."""

_BLOCK = 1 << 20

RUN, ANSWERS, GRADES, TIMES = "run.json", "answers.jsonl", "grades.jsonl", "times.jsonl"


class RecordError(EvaluationError):
    """A file of a run is missing or broken; the message names the file and the line."""


class Key(NamedTuple):
    """What an answer is an answer to."""

    arm: str
    dataset: str
    problem: str
    sample: int


@dataclass(frozen=True)
class Run:
    """Everything that fixes a run, and where it began."""

    format: int
    versions: Mapping[str, str | None]
    """Of soft_sglang, sglang, torch, transformers, math_verify, python; None: not known."""
    model: Mapping[str, Any]
    """``path``, ``name``, ``digest`` of config and weights (None unless they are local files)."""
    server: str
    """Its URL, or ``engine``."""
    engine_args: Mapping[str, Any]
    datasets: Sequence[Mapping[str, Any]]
    """``name``, ``path``, ``digest``, ``problems`` (how many)."""
    samples: int
    """Per problem and arm."""
    arms: Sequence[str]
    sampling: Mapping[str, Any]
    soft_thinking: Mapping[str, Any]
    seed: int
    prompt: Mapping[str, str]
    """The templates in use, by dataset."""
    machine: str
    started: str
    """UTC, ISO 8601."""
    added_arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The user's own arms: their fields of ``soft_thinking``."""


@dataclass(frozen=True)
class Keyed:
    """A record of one answer."""

    arm: str
    dataset: str
    problem: str
    sample: int

    @property
    def key(self) -> Key:
        """What the answer is an answer to."""
        return Key(self.arm, self.dataset, self.problem, self.sample)


@dataclass(frozen=True)
class Answer(Keyed):
    """One answer of the model."""

    seed: int
    question: str
    truth: str
    request: Mapping[str, Any]
    """Exactly as sent."""
    text: str
    """The whole output."""
    thinking: str | None
    """Before the end of thinking; None if thinking never ended, empty if the prompt closed it."""
    answer: str
    """After the end of thinking; empty if it never came."""
    tokens: int
    thinking_tokens: int | None
    """Up to and including the end of thinking, all if it never came; None: not known."""
    finish_reason: str
    soft_thinking: Mapping[str, Any] | None
    """``steps``, ``end``, ``mean_entropy``, ``longest_run``, ``entropies``; None: discrete."""
    seconds: float
    """From the request to its answer, among its neighbours."""
    finished_at: float
    """Unix time."""

    @property
    def end(self) -> str | None:
        """How thinking ended; None where the request was an ordinary one."""
        return self.soft_thinking["end"] if self.soft_thinking else None

    @property
    def entropies(self) -> Sequence[float]:
        """Nats, one per step of thinking; empty where they are not known."""
        return (self.soft_thinking or {}).get("entropies") or ()

    def without_texts(self) -> "Answer":
        """What statistics need: a large run would not fit into memory with all its texts."""
        soft_thinking = self.soft_thinking
        if soft_thinking is not None and soft_thinking.get("entropies") is not None:
            packed = array("d", soft_thinking["entropies"])
            soft_thinking = {**soft_thinking, "entropies": packed}
        return replace(
            self,
            question="",
            truth="",
            request={},
            text="",
            thinking=None,
            answer="",
            soft_thinking=soft_thinking,
        )


@dataclass(frozen=True)
class Grade(Keyed):
    """One verdict on one answer."""

    grader: str
    """``math_verify`` or ``llm_judge:<model>``."""
    rule: int
    """Version of the grader's rule."""
    correct: bool
    extracted: str | None
    """What was compared; None: nothing was found."""


@dataclass(frozen=True)
class Timing:
    """One uninterrupted stretch of one arm on one dataset."""

    arm: str
    dataset: str
    answers: int
    tokens: int
    """Of these answers."""
    seconds: float
    """Wall clock of the stretch."""


_Record = TypeVar("_Record", Answer, Grade, Timing)


def read_run(folder: Path) -> Run:
    """Read ``run.json``.

    Raises:
        RecordError: it is missing, broken or of another format.
    """
    path = folder / RUN
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordError(f"{folder} holds no run: {RUN} is missing") from None
    except ValueError as error:
        raise RecordError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RecordError(f"{path} is not of format {FORMAT}")
    return _build(Run, content, str(path))


def write_run(folder: Path, run: Run) -> None:
    """Write ``run.json``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{RUN}.partial"
    partial.write_text(json.dumps(asdict(run), indent=2, ensure_ascii=False) + "\n")
    partial.replace(folder / RUN)


def read_answers(folder: Path) -> Iterator[Answer]:
    """Every answer, in the order of arrival.

    Raises:
        RecordError: a line is broken, or an answer is there twice.
    """
    keys: set[Key] = set()
    for place, answer in _read(folder / ANSWERS, Answer):
        if answer.key in keys:
            raise RecordError(f"{place}: {tuple(answer.key)} is there twice")
        keys.add(answer.key)
        yield answer


def read_grades(folder: Path) -> list[Grade]:
    """The last grade of every answer and grader.

    Raises:
        RecordError: a line is broken.
    """
    last = {(grade.key, grade.grader): grade for _, grade in _read(folder / GRADES, Grade)}
    return list(last.values())


def read_timings(folder: Path) -> list[Timing]:
    """Every stretch.

    Raises:
        RecordError: a line is broken.
    """
    return [timing for _, timing in _read(folder / TIMES, Timing)]


class Lines:
    """Appends records to a file; each is in the file when :meth:`append` returns."""

    def __init__(self, path: Path) -> None:
        """Open the file and cut off half a line."""
        self._file = path.open("ab+")
        self._file.truncate(_complete_bytes(self._file))

    def append(self, record: Answer | Grade | Timing) -> None:
        """Append one record."""
        line = json.dumps(asdict(record), ensure_ascii=False, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _complete_bytes(file: BinaryIO) -> int:
    """Length of a file up to the end of its last whole line."""
    start = file.seek(0, os.SEEK_END)
    while start:
        start, end = max(0, start - _BLOCK), start
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
    return 0


def _read(path: Path, kind: type[_Record]) -> Iterator[tuple[str, _Record]]:
    """The records of a file, each with the place that an error would name."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            place = f"{path}, line {number}"
            try:
                content = json.loads(line)
            except ValueError as error:
                raise RecordError(f"{place} is not JSON: {error}") from None
            if not isinstance(content, dict):
                raise RecordError(f"{place} is not an object")
            yield place, _build(kind, content, place)


_Any = TypeVar("_Any", Run, Answer, Grade, Timing)


def _build(kind: type[_Any], content: Mapping[str, Any], place: str) -> _Any:
    for entry in fields(kind):
        required = entry.default is MISSING and entry.default_factory is MISSING
        if required and entry.name not in content:
            raise RecordError(f"{place}: the field {entry.name!r} is missing")
    names = {entry.name for entry in fields(kind)}
    return kind(**{name: value for name, value in content.items() if name in names})
