"""Requests whose thoughts begin and end in every way, for the tiny Llama, chosen by the oracle."""

from dataclasses import replace

from oracle import Oracle, Request

LONG = (200, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210, 211)
"""A marker that the model does not emit by itself."""


def find_sequence(ids: list[int], length: int, earliest: int) -> tuple[int, ...]:
    """The first tokens in a row, from a position on, that are not in a row before."""
    for at in range(earliest, len(ids) - length):
        wanted = ids[at : at + length]
        if all(ids[i : i + length] != wanted for i in range(at)):
            return tuple(wanted)
    raise AssertionError("the model repeats itself")


def marked_requests(oracle: Oracle) -> dict[str, tuple[Request, str]]:
    """The requests and how their thinking ends, by what they are about."""
    plain = Request([11, 70, 41, 99], steps=48, temperature=0.8, max_topk=6)
    ids = oracle.run(plain).ids
    three, two = find_sequence(ids, 3, 14), find_sequence(ids, 2, 9)
    at = next(i for i in range(8, 20) if ids[i] not in ids[:i])
    cold = {"entropy_threshold": 100.0, "length_threshold": at + 1}
    natural = replace(plain, end=three)
    answer = oracle.run(natural).ids[ids.index(three[0], 14) :]
    again = find_sequence(answer, 2, 6)
    single = replace(plain, think_end=ids[at])
    single_answer = oracle.run(single).ids[at + 1 :]
    return {
        "a natural end of three tokens": (natural, "think_end"),
        "its first token": (replace(plain, end=(ids[at], 200, 201), first_token=True), "think_end"),
        "cold stop, many tokens": (replace(plain, end=LONG, **cold), "cold_stop"),
        "cold stop, words before": (
            replace(plain, end=LONG[:2], cold_stop=(220, 221, 222, *LONG[:2]), **cold),
            "cold_stop",
        ),
        "cold stop, one token, words before": (
            replace(plain, cold_stop=(220, 221, 3), **cold),
            "cold_stop",
        ),
        "cold stop at the first token": (
            replace(plain, end=(ids[at], 200, 201), **cold),
            "cold_stop",
        ),
        "cold stop at the first token, words before": (
            replace(plain, end=(ids[at], 200), cold_stop=(220, ids[at], 200), **cold),
            "cold_stop",
        ),
        "cold stop in the first-token form": (
            replace(plain, end=LONG[:4], first_token=True, **cold),
            "cold_stop",
        ),
        "a natural end where cold stop is due": (
            replace(plain, end=two, entropy_threshold=100.0, length_threshold=_end(ids, two)),
            "think_end",
        ),
        "no budget": (replace(plain, budget=0), "budget"),
        "no budget, many tokens": (replace(plain, budget=0, end=LONG), "budget"),
        "a budget": (replace(plain, budget=9, cold_stop=(220, 3)), "budget"),
        "a natural end on the last step of the budget": (
            replace(plain, end=two, budget=_end(ids, two) - 1),
            "think_end",
        ),
        "a budget not used up": (replace(plain, end=two, budget=_end(ids, two)), "think_end"),
        "cut while it is forced": (replace(plain, budget=42, end=LONG), "length"),
        "thinking again": (replace(natural, start=again), "length"),
        "thinking again, with little left": (
            replace(natural, start=again, budget=_end(ids, three) + 3),
            "budget",
        ),
        "thinking again after one token": (
            replace(single, start=(single_answer[4],), end=(ids[at],)),
            "",
        ),
        "closed, opened by the model": (
            replace(plain, closed=True, start=find_sequence(oracle.greedy(plain.prompt, 40), 2, 5)),
            "length",
        ),
        "closed, never opened": (replace(plain, closed=True, start=LONG), "closed"),
    }


def _end(ids: list[int], marker: tuple[int, ...]) -> int:
    """Number of tokens up to the end of a marker."""
    length = len(marker)
    return next(n for n in range(length, len(ids)) if tuple(ids[n - length : n]) == marker)
