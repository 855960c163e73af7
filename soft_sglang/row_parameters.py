"""What the host knows of one row of a batch before a step."""

from typing import NamedTuple

from soft_sglang.concept_table import AnswerSampling
from soft_sglang.parameters import SoftThinkingParams

TOP_K_OFF = 1 << 30
"""Smallest top-k that means none; SGLang's."""


class RowParameters(NamedTuple):
    """What a plan needs to know of one row of a batch."""

    soft: SoftThinkingParams | None
    """None: a discrete request."""
    top_k: int
    """Of the thinking phase; at least :data:`TOP_K_OFF` means off."""
    answer: AnswerSampling
    """How the row is sampled while it is not thinking."""
