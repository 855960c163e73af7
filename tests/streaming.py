"""Reading streams: OpenAI's chunks and the events of ``/generate``."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from asking import SUMMARY, answer_of

PER_STEP = {"concepts", "entropies", "positions"}


@dataclass
class Streamed:
    """What the chunks of one choice said."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)
    """The ``soft_thinking`` fields, in order."""

    def joined(self) -> dict[str, Any]:
        """The answer that the chunks make together.

        Only the last carries the summary.
        """
        *parts, last = self.answers
        per_step = set(last) - SUMMARY
        assert per_step <= PER_STEP and set(last) >= SUMMARY
        assert all(set(part) == per_step for part in parts)
        joined = {name: last[name] for name in SUMMARY}
        for name in per_step:
            joined[name] = [entry for part in self.answers for entry in part[name]]
        return joined


def read(stream: Iterable[Any]) -> tuple[dict[int, Streamed], Any]:
    """Read chunks to the end: the choices by index, and the usage."""
    choices: dict[int, Streamed] = {}
    usage = None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            _add(choices.setdefault(choice.index, Streamed()), choice)
    return choices, usage


def _add(streamed: Streamed, choice: Any) -> None:
    if hasattr(choice, "delta"):
        streamed.text += choice.delta.content or ""
        streamed.reasoning += choice.delta.to_dict().get("reasoning_content") or ""
    else:
        streamed.text += choice.text
    answer = answer_of(choice)
    if answer is not None:
        assert streamed.finish_reason is None, "the field comes after the last chunk"
        streamed.answers.append(answer)
        if choice.finish_reason is None:
            assert set(answer) <= PER_STEP and all(answer.values()), "a chunk with nothing to tell"
    streamed.finish_reason = streamed.finish_reason or choice.finish_reason


def events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream of ``/generate``."""
    for line in lines:
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))
