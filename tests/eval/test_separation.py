"""Where thinking ends."""

import pytest

from soft_sglang.eval.separation import end_of_thinking, is_closed, split


@pytest.mark.parametrize(
    ("text", "occurrence", "expected"),
    [
        ("a</think>b", 1, ("a", "b")),
        ("</think>", 1, ("", "")),
        ("a</think>b</think>c", 1, ("a", "b</think>c")),
        ("a</think>b</think>c", 2, ("a</think>b", "c")),
        ("a", 1, (None, "")),
        ("a</think>b", 2, (None, "")),
        ("", 1, (None, "")),
    ],
)
def test_split(text, occurrence, expected):
    assert split(text, "</think>", occurrence) == expected


@pytest.mark.parametrize(
    ("ids", "end_ids", "expected"),
    [
        ([5, 6, 7], [6], 2),
        ([6, 6], [6], 1),
        ([5, 7], [6], None),
        ([], [6], None),
        ([5, 1, 2, 1, 2], [1, 2], 3),
        ([1, 1, 2], [1, 2], 3),
        ([2, 1], [1, 2], None),
    ],
)
def test_end_of_thinking(ids, end_ids, expected):
    assert end_of_thinking(ids, end_ids) == expected


def test_only_the_answer_itself_says_that_its_prompt_was_closed():
    assert is_closed({"steps": 0, "end": "closed"})
    assert not is_closed({"steps": 0, "end": "stop"})
    assert not is_closed(None)
