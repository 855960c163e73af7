"""Batches of soft and discrete requests for the concept sampler, without SGLang."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from soft_sglang.concept_sampler import BatchPlan, ConceptStep, plan_batch
from soft_sglang.concept_table import AnswerSampling, ConceptTable, RowStart
from soft_sglang.kernels.sampling import Sampling
from soft_sglang.parameters import SoftThinkingParams
from soft_sglang.row_parameters import RowParameters
from soft_sglang.state_machine import ThinkingState

VOCAB = 40
THINK_END = 3
TOP_K_OFF = 1 << 30
ANSWER = AnswerSampling(temperature=0.25, top_p=0.5, top_k=4, min_p=0.125)
INF = float("inf")

PARAMS = SoftThinkingParams(
    max_topk=4,
    early_stopping_entropy_threshold=0.0,
    early_stopping_length_threshold=256,
    think_end_ids=(THINK_END,),
    cold_stop_ids=(THINK_END,),
    seed=5,
    after_thinking_temperature=ANSWER.temperature,
    after_thinking_top_p=ANSWER.top_p,
    after_thinking_top_k=ANSWER.top_k,
    after_thinking_min_p=ANSWER.min_p,
    separate_answer=True,
    noise="none",
    gumbel_softmax_temperature=0.5,
    dirichlet_alpha=1.0,
    return_concepts=True,
)


@dataclass
class Request:
    """A request of a batch; its prefill has ended unless it was not started."""

    slot: int
    params: SoftThinkingParams | None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = TOP_K_OFF
    min_p: float = 0.0

    @property
    def answer(self) -> AnswerSampling:
        if self.params is not None and self.params.separate_answer:
            return ANSWER
        return AnswerSampling(self.temperature, self.top_p, self.top_k, self.min_p)

    def state(self) -> ThinkingState:
        """The scheduler's, before the first step."""
        assert self.params is not None
        return ThinkingState(self.params.rules)

    def start(self, state: ThinkingState | None = None, step: int = 0) -> RowStart:
        return RowStart(self.slot, self.params, self.answer, state or self.state(), step)


def plan_of(requests: Sequence[Request], device: str = "cpu") -> BatchPlan | None:
    rows = [RowParameters(r.params, r.top_k, r.answer) for r in requests]
    return plan_batch(rows, torch.device(device))


def sampling_of(requests: Sequence[Request], device: str = "cpu") -> Sampling:
    return Sampling(
        temperatures=torch.tensor([[r.temperature] for r in requests], device=device),
        top_ps=torch.tensor([r.top_p for r in requests], device=device),
        top_ks=torch.tensor([r.top_k for r in requests], dtype=torch.int32, device=device),
        min_ps=torch.tensor([r.min_p for r in requests], device=device),
    )


def run(
    table: ConceptTable,
    requests: Sequence[Request],
    logits: torch.Tensor,
    sampled: torch.Tensor,
    agree: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, ConceptStep]:
    """One step of a batch beside another sampler, to its end: the ids it emits, and the step."""
    plan = plan_of(requests)
    assert plan is not None
    step = ConceptStep(table, plan, torch.tensor([r.slot for r in requests]))
    step.think(logits, sampling_of(requests), replace(plan.step, samples=False), agree)
    ids = step.final_ids(sampled)
    step.rethink(ids)
    return ids, step


def started(*requests: Request, rows: int = 8, width: int = 6) -> ConceptTable:
    table = ConceptTable(rows, width, "cpu")
    table.start([request.start() for request in requests])
    return table


def contents(table: ConceptTable) -> dict[str, torch.Tensor]:
    columns = table.rows._asdict()
    columns |= {f"guided {name}": column for name, column in table.guided._asdict().items()}
    return {name: column.clone() for name, column in columns.items()}


def assert_rows_unchanged(
    table: ConceptTable, before: dict[str, torch.Tensor], slots: Sequence[int]
) -> None:
    for name, value in contents(table).items():
        assert torch.equal(value[list(slots)], before[name][list(slots)]), name


def fed(table: ConceptTable, slot: int) -> list[tuple[int, float]]:
    """The concept in a row: pairs of an id and a weight that is not 0."""
    pairs = zip(table.rows.ids[slot].tolist(), table.rows.weights[slot].tolist(), strict=True)
    return [(i, w) for i, w in pairs if w != 0]


def assert_same(
    pairs: list[tuple[int, float]], expected: list[tuple[int, float]], tolerance: dict[str, float]
) -> None:
    assert [i for i, _ in pairs] == [i for i, _ in expected]
    np.testing.assert_allclose([w for _, w in pairs], [w for _, w in expected], **tolerance)


def logits_of(*favourites: Sequence[int], gap: float = 1.0) -> torch.Tensor:
    """Per row the tokens from the heaviest to the lightest, the others far below."""
    logits = torch.full((len(favourites), VOCAB), -50.0)
    for row, tokens in enumerate(favourites):
        for rank, token in enumerate(tokens):
            logits[row, token] = -gap * rank
    return logits


SAMPLED = torch.tensor([30, 31, 32, 33, 34])
