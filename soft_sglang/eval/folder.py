"""The folder of a run: begun, or taken up again with the same parameters."""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from soft_sglang.eval.records import (
    ANSWERS,
    RUN,
    RecordError,
    Run,
    read_answers,
    read_run,
    write_run,
)

_FREE = frozenset({"machine", "started"})
"""Fields that may differ when a run is taken up again."""


@contextmanager
def opened(folder: Path) -> Iterator[None]:
    """Keep a folder for this process.

    Raises:
        RecordError: it cannot be written, or another process has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise RecordError(f"{folder} cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecordError(f"another process is writing into {folder}") from None
        yield


def refuse_other_plan(folder: Path, fields: Mapping[str, Any]) -> None:
    """Check the fields of a run that are known before a model is loaded.

    Raises:
        RecordError: naming the first field that differs from the folder's run, if it has answers.
    """
    if _has_answers(folder) and (folder / RUN).exists():
        before = asdict(read_run(folder))
        _refuse_difference(folder, {name: before[name] for name in fields}, fields)


def begin_or_resume(folder: Path, run: Run) -> None:
    """Write ``run.json``, or check that the one that is there says the same.

    A server may have moved: its URL may differ, but not whether it is one. While there is no
    answer, parameters may change: a command that was refused may be corrected.

    Raises:
        RecordError: naming the first field that differs.
    """
    if not (folder / RUN).exists():
        if (folder / ANSWERS).exists():
            raise RecordError(f"{folder} holds answers but no {RUN}; choose another folder")
        write_run(folder, run)
        return
    before, now = asdict(read_run(folder)), asdict(run)
    if not _has_answers(folder):
        write_run(folder, run)
        return
    for fields in (before, now):
        if fields["server"] != "engine":
            fields["server"] = "a server"
    _refuse_difference(folder, before, now)


def _has_answers(folder: Path) -> bool:
    return next(read_answers(folder), None) is not None


def _refuse_difference(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    difference = _difference(before, now, "")
    if difference:
        raise RecordError(
            f"{folder} holds a run with other parameters: {difference}; "
            "repeat its command to go on with it, or choose another folder"
        )


def _difference(before: Any, now: Any, place: str) -> str | None:
    """The first difference, as ``field: was …, is …``."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys([*before, *now]):
            inner = f"{place}.{name}" if place else name
            if inner in _FREE:
                continue
            found = _difference(before.get(name), now.get(name), inner)
            if found:
                return found
        return None
    if _is_list(before) and _is_list(now) and len(before) == len(now):
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            found = _difference(one, other, f"{place}[{number}]")
            if found:
                return found
        return None
    return None if before == now else f"{place}: was {before!r}, is {now!r}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
