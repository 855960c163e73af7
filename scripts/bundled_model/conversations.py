"""Training examples: conversations as text, and batches of token ids with their masks."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from phrasings import phrase
from problems import training_problem
from tokenizer import ASSISTANT, END, THINK, THINK_END, USER
from torch import Tensor
from transformers import PreTrainedTokenizerFast

FOLLOW_UP_SHARE = 0.06
"""Share of the conversations with an earlier question and its answer before the last one."""
POOL = 8
"""Batches drawn at once and sorted by length, to spend little on padding."""


USUAL_SHARE = 0.65
"""How often the first of two thoughts is the one to learn from."""


@dataclass(frozen=True)
class Path:
    """One way of writing every conversation of a batch: n rows, right-padded to one length.

    ids: [n, length] int64. labels: [n, length] int64, the token each position must predict, -100
    where there is no loss (the prompt and the padding). thinking: [n, length] bool, the positions
    whose *input* is a thought token, which soft thinking feeds as a mixture: after ``<think>``,
    before ``</think>``.
    """

    ids: Tensor
    labels: Tensor
    thinking: Tensor

    def where(self, rows: Tensor, other: "Path") -> "Path":
        """This path in the given rows ([n] bool), the other one in the rest."""
        rows = rows[:, None]
        return Path(
            self.ids.where(rows, other.ids),
            self.labels.where(rows, other.labels),
            self.thinking.where(rows, other.thinking),
        )


@dataclass(frozen=True)
class Batch:
    """The path drawn for each row, and the other path (the same one where there is no other).

    branch: [n] int64, the first position where the two differ; the length where they do not.
    """

    drawn: Path
    other: Path
    branch: Tensor


@dataclass(frozen=True)
class Conversation:
    """A prompt that ends in ``<think>``, with the drawn completion and the other one."""

    prompt: str
    drawn: str
    other: str


def prompt(question: str) -> str:
    """What the chat template makes of a single question."""
    return f"{USER}{question}{ASSISTANT}{THINK}"


def conversation(rng: random.Random) -> Conversation:
    """Draws a conversation, now and then with an earlier question and its answer."""
    history = ""
    if rng.random() < FOLLOW_UP_SHARE:
        earlier = training_problem(rng)
        history = f"{USER}{phrase(earlier, rng)}{ASSISTANT}{earlier.answer}{END}"
    problem = training_problem(rng)
    usual, *rest = (f"{t}{THINK_END}{problem.answer}{END}" for t in problem.thoughts())
    paths = (usual, *rest) if rng.random() < USUAL_SHARE else (*rest, usual)
    return Conversation(history + prompt(phrase(problem, rng)), paths[0], paths[-1])


def batches(tokenizer: PreTrainedTokenizerFast, size: int, seed: int) -> Iterator[Batch]:
    """An endless stream of fresh batches, fixed by `seed`."""
    rng = random.Random(seed)
    while True:
        pool = [conversation(rng) for _ in range(POOL * size)]
        pool.sort(key=lambda c: len(c.prompt) + len(c.drawn))
        groups = [pool[i : i + size] for i in range(0, len(pool), size)]
        rng.shuffle(groups)
        for group in groups:
            yield collate(group, tokenizer)


def collate(group: list[Conversation], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Tokenizes conversations and packs them into a `Batch`."""
    prompts = tokenizer([c.prompt for c in group])["input_ids"]
    drawn = tokenizer([c.drawn for c in group])["input_ids"]
    other = tokenizer([c.other for c in group])["input_ids"]
    length = max(
        len(p) + max(len(d), len(o)) for p, d, o in zip(prompts, drawn, other, strict=True)
    )
    drawn_path = pack(prompts, drawn, length, tokenizer)
    other_path = pack(prompts, other, length, tokenizer)
    differ = drawn_path.ids != other_path.ids
    branch = differ.int().argmax(-1).where(differ.any(-1), length)
    return Batch(drawn_path, other_path, branch)


def pack(
    prompts: list[list[int]],
    completions: list[list[int]],
    length: int,
    tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """Pads rows of prompt ids and completion ids to `length`."""
    pad, think_end = tokenizer.convert_tokens_to_ids([tokenizer.pad_token, THINK_END])
    shape = len(prompts), length
    ids = torch.full(shape, pad)
    labels = torch.full(shape, -100)
    thinking = torch.zeros(shape, dtype=torch.bool)
    for i, (start, end) in enumerate(zip(prompts, completions, strict=True)):
        first, stop = len(start), len(start) + len(end)
        ids[i, :stop] = torch.tensor(start + end)
        labels[i, first - 1 : stop - 1] = torch.tensor(end)
        thinking[i, first : first + end.index(think_end)] = True
    return Path(ids, labels, thinking)
