"""Shapes of the kernels' benchmark, and random inputs of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from soft_sglang.kernels.sampling import Sampling
from soft_sglang.kernels.table_rows import ANSWERING, THINKING, TableRows
from soft_sglang.kernels.thinking_step import StepPlan
from support.kernel_inputs import PAPER, UNFILTERED

SETTINGS = {"paper": PAPER, "unfiltered": UNFILTERED}
PHASES = {"thinking": THINKING, "answering": ANSWERING}
TABLE_ROWS = 513
"""Request slots of the concept table, with its padding row."""


@dataclass(frozen=True)
class StepCase:
    """One thinking step of a batch."""

    batch: int
    vocab: int = 151936
    logits: str = "peaked"
    """``peaked``: a few tokens hold nearly all the mass, as in a model that is sure. ``flat``:
    thousands do. Both are rounded to bfloat16, as a model's are, so that many are equal."""
    setting: str = "paper"
    phase: str = "thinking"
    """Of all rows; those that answer are sampled."""

    @property
    def logits_bytes(self) -> int:
        return 4 * self.batch * self.vocab

    @property
    def bytes(self) -> int:
        """What must move: the logits in, concepts out, to the result and to the table."""
        width = SETTINGS[self.setting].max_topk
        return self.logits_bytes + self.batch * (2 * 12 * width + 100)


@dataclass(frozen=True)
class EmbeddingCase:
    """The embeddings of a batch's inputs."""

    batch: int
    width: int = 8
    """Tokens of a concept."""
    dim: int = 8192
    weights: str = "all"
    """``all``: none is zero. ``one``: all but the first are, so that nothing is mixed."""
    vocab: int = 151936
    dtype: torch.dtype = torch.bfloat16

    @property
    def bytes(self) -> int:
        """What must move: the table's rows in, the embeddings out, the concepts in."""
        rows = self.width if self.weights == "all" else 1
        return self.batch * (self.dim * self.dtype.itemsize * (rows + 1) + 12 * self.width + 16)


Case = StepCase | EmbeddingCase


@dataclass
class StepInputs:
    """Of one case; the logits in several copies that differ."""

    logits: torch.Tensor
    """``[copies, B, V]`` float32."""
    sampling: Sampling
    table: TableRows
    slots: torch.Tensor
    plan: StepPlan


def step_inputs(case: StepCase, copies: int, device: torch.device) -> StepInputs:
    """Fresh random inputs."""
    setting = SETTINGS[case.setting]
    logits = torch.randn(copies, case.batch, case.vocab, device=device)
    if case.logits == "peaked":
        heaviest = torch.randint(
            case.vocab - 1, (copies, case.batch, 24), dtype=torch.int64, device=device
        )
        falling = 22 - 3 * torch.log1p(torch.arange(24, device=device, dtype=torch.float32))
        falling = falling + torch.randn(heaviest.shape, device=device)
        logits.mul_(2.5).scatter_(-1, heaviest, falling)
    elif case.logits != "flat":
        raise ValueError(f"logits: {case.logits!r}")
    logits = logits.bfloat16().float()
    logits[..., -1] = -50.0  # the think-end token, which would end the row's phase
    return StepInputs(
        logits=logits,
        sampling=setting.sampling(case.batch, device),
        table=setting.table(TABLE_ROWS, case.vocab - 1, device, PHASES[case.phase]),
        slots=1 + torch.randperm(TABLE_ROWS - 1, device=device)[: case.batch],
        plan=setting.plan(),
    )


@dataclass
class EmbeddingInputs:
    """Of one case; the concepts in several copies that differ."""

    table: torch.Tensor
    ids: torch.Tensor
    """``[copies, R, K]``."""
    weights: torch.Tensor
    """``[copies, R, K]``."""
    slots: torch.Tensor
    """``[copies, B]``."""
    input_ids: torch.Tensor
    """``[copies, B]``."""


def embedding_inputs(
    case: EmbeddingCase, copies: int, device: torch.device, table: torch.Tensor
) -> EmbeddingInputs:
    """Fresh random inputs, with a given ``[V, D]`` table."""
    shape = copies, TABLE_ROWS, case.width
    ids = torch.randint(case.vocab, shape, device=device)
    if case.weights == "all":
        weights = torch.randn(shape, device=device).softmax(-1).sort(-1, descending=True).values
    else:
        weights = torch.zeros(shape, device=device)
        weights[..., 0] = 1.0
    slots = torch.stack(
        [1 + torch.randperm(TABLE_ROWS - 1, device=device)[: case.batch] for _ in range(copies)]
    )
    copy = torch.arange(copies, device=device)[:, None]
    return EmbeddingInputs(table, ids, weights, slots, ids[copy, slots, 0])


def goal_cases() -> Iterator[Case]:
    """What counts most, first."""
    yield EmbeddingCase(256)
    yield EmbeddingCase(256, weights="one")
    for batch in (1, 8, 32, 64, 128, 256):
        yield StepCase(batch)
    for batch in (1, 32):
        yield EmbeddingCase(batch)
        yield EmbeddingCase(batch, weights="one")


def sweep_cases() -> Iterator[Case]:
    """The rest, coarse before fine."""
    for batch in (1, 32, 256):
        yield StepCase(batch, phase="answering")
        yield StepCase(batch, setting="unfiltered")
        yield StepCase(batch, setting="unfiltered", phase="answering")
        yield StepCase(batch, logits="flat")
        yield StepCase(batch, logits="flat", setting="unfiltered", phase="answering")
    for vocab in (32000, 128256, 262144):
        for batch in (1, 32, 256):
            yield StepCase(batch, vocab=vocab)
    for dim in (4096, 2048, 16384):
        for batch in (1, 32, 256):
            yield EmbeddingCase(batch, dim=dim)
            yield EmbeddingCase(batch, dim=dim, weights="one")
    for width in (1, 2, 4, 16, 32):
        for batch in (32, 256):
            yield EmbeddingCase(batch, width=width)
    for batch in (8, 64, 128):
        yield EmbeddingCase(batch)
        yield EmbeddingCase(batch, weights="one")


def cpu_cases() -> Iterator[Case]:
    """Shapes for the references on a CPU."""
    for batch in (1, 8, 32):
        yield StepCase(batch, vocab=32000)
    yield StepCase(8, vocab=151936)
    yield StepCase(8, vocab=32000, phase="answering")
    yield StepCase(8, vocab=32000, setting="unfiltered", phase="answering")
    for batch in (1, 32):
        for weights in ("all", "one"):
            yield EmbeddingCase(batch, vocab=32000, dim=1024, weights=weights, dtype=torch.float32)


def interpreted_cases() -> Iterator[Case]:
    """Shapes for Triton's interpreter, which only shows that everything runs."""
    for batch in (1, 2):
        yield EmbeddingCase(batch, vocab=300, dim=96, width=3)
        yield EmbeddingCase(batch, vocab=300, dim=96, width=3, weights="one")
        yield StepCase(batch, vocab=9000)
    yield StepCase(1, vocab=9000, phase="answering")
    yield StepCase(1, vocab=9000, setting="unfiltered", phase="answering")
