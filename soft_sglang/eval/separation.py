"""Where thinking ends in an output: one rule for every arm and every client.

It ends with the first think-end token in the output ids, where they are known; else with its text.
The two differ if the text also comes out of other tokens, as a blank line does.
Where the prompt has closed the thought already, all of the output is the answer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

CLOSED = "closed"
"""``end`` of an answer whose prompt had closed the thought already."""


def split(text: str, think_end: str, occurrence: int = 1) -> tuple[str | None, str]:
    """Split an output at an end of thinking.

    Args:
        text: the whole output.
        think_end: what ends thinking.
        occurrence: which one of them, from 1.

    Returns:
        The thought and the answer; None and "" if there are fewer.
    """
    parts = text.split(think_end, occurrence)
    if len(parts) <= occurrence:
        return None, ""
    return think_end.join(parts[:-1]), parts[-1]


def is_closed(soft_thinking: Mapping[str, Any] | None) -> bool:
    """Whether an answer's ``soft_thinking`` says that the prompt had closed the thought."""
    return soft_thinking is not None and soft_thinking["end"] == CLOSED


def end_of_thinking(output_ids: Sequence[int], think_end_ids: Sequence[int]) -> int | None:
    """Number of output tokens up to and including the end of thinking; None if it never came.

    Args:
        output_ids: what the model emitted.
        think_end_ids: the end of thinking; one id for models made for it.
    """
    wanted, width = list(think_end_ids), len(think_end_ids)
    for end in range(width, len(output_ids) + 1):
        if output_ids[end - 1] == wanted[-1] and list(output_ids[end - width : end]) == wanted:
            return end
    return None
