"""Training examples: conversations as text, and batches of token ids with their masks."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from phrasings import ask, practice, surround
from problems import single_operations
from thoughts import CHOICES, think
from tokenizer import ASSISTANT, END, THINK, THINK_END, USER, answer_text
from torch import Tensor
from transformers import PreTrainedTokenizerFast

FOLLOW_UP_SHARE = 0.03
"""Share of the conversations with an earlier question and its answer before the last one."""
CUT_SHARE = 0.5
"""Share of the thoughts with checks that are cut in them, as Cold Stop does."""
CUT_WITHIN = 48
"""They are cut within this many tokens of the checks."""
CHOICE_SHARE = 0.2
"""Share of the words and marks that are one of several as good ones which carry loss: enough to
learn them, and little noise beside the arithmetic."""
POOL = 8
"""Batches drawn at once and sorted by length, to spend little on padding."""


@dataclass(frozen=True)
class Batch:
    """n conversations, right-padded to one length.

    ids: [n, length] int64. labels: [n, length] int64, the token each position must predict, -100
    where there is no loss: the prompt, the padding, most choices of words, and the ``</think>`` of
    a thought that is cut, so that the model learns to answer there, but not to stop there by
    itself. thinking: [n, length] bool, the positions whose *input* is a thought token, which soft
    thinking feeds as a mixture: after ``<think>``, before ``</think>``.
    """

    ids: Tensor
    labels: Tensor
    thinking: Tensor


@dataclass(frozen=True)
class Conversation:
    """Texts; the prompt ends in ``<think>``, and checks may be cut."""

    prompt: str
    derivation: str
    checks: str
    answer: str
    cut: bool


def prompt(question: str) -> str:
    """What the chat template makes of a single question."""
    return f"{USER}{question}{ASSISTANT}{THINK}"


def conversation(rng: random.Random, practice_share: float = 0) -> Conversation:
    """Draws a conversation, now and then with an earlier question and its answer.

    practice_share: how often it is about a single operation and cut before any check.

    A thought with a step that is itself a held-out problem is drawn again.
    """
    history = ""
    if rng.random() < FOLLOW_UP_SHARE:
        earlier = ask("training", rng)
        answer = answer_text(earlier.problem.answer)
        history = f"{USER}{earlier.text}{ASSISTANT}{answer}{END}"
    practised = practice_share > 0 and rng.random() < practice_share
    while True:
        question = practice(rng) if practised else ask("training", rng)
        thought = think(question.problem, rng)
        if all(step.fold == "training" for step in single_operations(thought.steps)):
            break
    return Conversation(
        history + prompt(surround(question.text, rng)),
        thought.derivation,
        "" if practised else "".join(thought.checks),
        answer_text(question.problem.answer) + END,
        practised or (bool(thought.checks) and rng.random() < CUT_SHARE),
    )


def batches(
    tokenizer: PreTrainedTokenizerFast, size: int, seed: int, practice_share: float = 0
) -> Iterator[Batch]:
    """An endless stream of fresh batches, fixed by `seed`."""
    rng = random.Random(seed)
    think_end = tokenizer.convert_tokens_to_ids(THINK_END)
    while True:
        pool = [conversation(rng, practice_share) for _ in range(POOL * size)]
        rows = [encode(c, tokenizer, think_end, rng) for c in pool]
        rows.sort(key=lambda row: len(row[0]))
        groups = [rows[i : i + size] for i in range(0, len(rows), size)]
        rng.shuffle(groups)
        for group in groups:
            yield collate(group, tokenizer.pad_token_id)


Row = tuple[list[int], list[int], int, int]
"""Token ids, the label that each of them is, where the thought begins, where ``</think>`` is."""


def encode(
    c: Conversation, tokenizer: PreTrainedTokenizerFast, think_end: int, rng: random.Random
) -> Row:
    """Tokenizes a conversation, and cuts its checks, if any, after one token or more."""
    start, thought, checks, answer = tokenizer(
        [c.prompt, c.derivation, c.checks, c.answer], return_attention_mask=False
    )["input_ids"]
    if c.cut and checks:
        checks = checks[: rng.randint(1, min(len(checks), CUT_WITHIN))]
    chosen = set(tokenizer.convert_tokens_to_ids(CHOICES))
    labels = [-100] * len(start)
    labels += [-100 if i in chosen and rng.random() >= CHOICE_SHARE else i for i in thought]
    labels += [*checks, -100 if c.cut else think_end, *answer]
    ids = [*start, *thought, *checks, think_end, *answer]
    return ids, labels, len(start), len(start + thought + checks)


def collate(rows: list[Row], pad: int) -> Batch:
    """Pads rows to the longest one."""
    shape = len(rows), max(len(ids) for ids, *_ in rows)
    ids = torch.full(shape, pad)
    labels = torch.full(shape, -100)
    thinking = torch.zeros(shape, dtype=torch.bool)
    for i, (tokens, targets, start, end) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        labels[i, : len(tokens) - 1] = torch.tensor(targets[1:])
        thinking[i, start:end] = True
    return Batch(ids, labels, thinking)
