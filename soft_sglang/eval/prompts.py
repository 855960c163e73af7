"""Prompts of arXiv 2505.15778, as in its public implementation: one message of the user."""

from collections.abc import Mapping

TEMPLATES: Mapping[str, str] = {
    "math": (
        "Please reason step by step, and put your final answer within \\boxed{}.\n\n{question}"
    ),
    "choice": (
        "Please solve the following multiple-choice question. Please show your choice in the "
        'answer field with only the choice letter, e.g.,"answer": "C".\n\n{question}'
    ),
    "none": "{question}",
}
"""By name. ``none`` is the question alone, for models trained on one kind of question."""


def fill(template: str, question: str) -> str:
    """The user message."""
    return template.replace("{question}", question)
