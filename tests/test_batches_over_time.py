"""Many requests over time against the oracle: batches that change, retraction, widths."""

from dataclasses import replace

import numpy as np
import pytest
import tolerances
import torch
from float64_oracle import Row, concept
from one_thread import one_thread  # noqa: F401 - the import switches it on
from soft_batches import (
    INF,
    PARAMS,
    SAMPLED,
    THINK_END,
    TOP_K_OFF,
    VOCAB,
    Request,
    assert_rows_unchanged,
    assert_same,
    contents,
    fed,
    logits_of,
    run,
    started,
)

from soft_sglang.concept_table import ConceptTable, RowStart
from soft_sglang.kernels import noise
from soft_sglang.state_machine import Phase, ThinkingState


def oracle_row(request: Request, step: int) -> Row:
    """The request's parameters as the device sees them, with its noise at an output position."""
    params = request.params
    assert params is not None
    seed, position = torch.tensor([params.seed]), torch.tensor([step])

    def gumbel(token: int) -> float:
        return noise.gumbel(seed, position, torch.tensor([[token]])).item()

    def log_gamma(ids: list[int], concentrations: list[float]) -> list[float]:
        arguments = seed, position, torch.tensor([ids])
        return noise.log_gamma_variate(torch.tensor([concentrations]), *arguments)[0].tolist()

    return Row(
        temperature=float(np.float32(request.temperature)),
        top_k=None if request.top_k == TOP_K_OFF else request.top_k,
        top_p=float(np.float32(request.top_p)),
        min_p=float(np.float32(request.min_p)),
        max_topk=params.max_topk,
        gumbel=gumbel if params.noise == "gumbel" else None,
        gumbel_temperature=params.gumbel_softmax_temperature,
        log_gamma=log_gamma if params.noise == "dirichlet" else None,
        dirichlet_alpha=params.dirichlet_alpha,
    )


class Expected:
    """One request on the host: the oracle and the scheduler's state machine."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.emitted = 0
        self.fed: list[tuple[int, float]] = []
        self.state: ThinkingState | None = None
        if request.params is not None:
            self.state = ThinkingState(
                float(np.float32(request.params.early_stopping_entropy_threshold)),
                request.params.early_stopping_length_threshold,
                request.params.think_end_id,
            )

    def step(self, logits: torch.Tensor, sampled: int) -> int:
        """The token that the step emits."""
        if self.state is None or self.state.phase is not Phase.THINKING:
            return sampled
        expected = concept(logits.double().numpy(), oracle_row(self.request, self.emitted))
        allowed = bool(logits[self.state.think_end_id] > -INF)
        token = self.state.advance(expected.ids[0], expected.entropy, allowed)
        self.fed = list(zip(expected.ids, expected.weights, strict=True))
        if self.state.phase is Phase.ANSWERING:
            self.fed = [(token, 1.0)]
        self.emitted += 1
        return token

    def check(self, table: ConceptTable) -> None:
        slot = self.request.slot
        row = fed(table, slot)
        # what is missing underflowed
        assert all(w < tolerances.DIRICHLET_WEIGHT["atol"] for _, w in self.fed[len(row) :])
        assert_same(row, self.fed[: len(row)], tolerances.DIRICHLET_WEIGHT)
        phase = Phase.DISCRETE if self.state is None else self.state.phase
        assert table.rows.phase[slot] == phase
        if self.state is not None:
            assert (table.rows.run[slot], table.rows.step[slot]) == (self.state.run, self.emitted)


def random_request(rng: np.random.Generator, slot: int) -> Request:
    params = None
    if rng.random() < 0.75:
        params = replace(
            PARAMS,
            max_topk=int(rng.integers(1, 7)),
            early_stopping_entropy_threshold=float(rng.choice([0.0, 0.5, 1.5])),
            early_stopping_length_threshold=int(rng.integers(1, 5)),
            think_end_id=int(rng.integers(VOCAB)),
            seed=int(rng.integers(-(2**63), 2**63 - 1)),
            noise=str(rng.choice(["none", "gumbel", "dirichlet"])),
            dirichlet_alpha=float(rng.choice([1.0, 30.0])),
            separate_answer=bool(rng.random() < 0.5),
        )
    return Request(
        slot,
        params,
        temperature=float(rng.choice([0.6, 1.0, 1.5])),
        top_p=float(rng.choice([0.8, 0.95, 1.0])),
        top_k=int(rng.choice([1, 3, 20, TOP_K_OFF])),
        min_p=float(rng.choice([0.0, 0.05])),
    )


@pytest.mark.parametrize("seed", range(4))
def test_random_batches_over_time(seed: int) -> None:
    """Requests come, think, answer and go; slots are reused; the batch changes every step."""
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    table = ConceptTable(rows=8, width=6, device="cpu")
    live: list[Expected] = []
    ends = 0
    for _ in range(30):
        free = sorted(set(range(1, 8)) - {e.request.slot for e in live})
        arriving = [
            random_request(rng, int(slot)) for slot in rng.permutation(free)[: rng.integers(0, 3)]
        ]
        table.start([r.start() if r.params else RowStart(r.slot, None) for r in arriving])
        live += [Expected(request) for request in arriving]

        batch = [live[i] for i in rng.permutation(len(live)) if rng.random() < 0.8]
        requests = [expected.request for expected in batch]
        if any(request.params for request in requests):
            logits = 3 * torch.randn(len(batch), VOCAB, generator=generator)
            logits.masked_fill_(torch.rand(logits.shape, generator=generator) < 0.2, -INF)
            sampled = torch.randint(0, VOCAB, (len(batch),), generator=generator)
            before = contents(table)
            ids, _ = run(table, requests, logits, sampled)
            assert ids.tolist() == [
                expected.step(row, token)
                for expected, row, token in zip(batch, logits, sampled.tolist(), strict=True)
            ]
            inside = {request.slot for request in requests if request.params}
            assert_rows_unchanged(table, before, sorted(set(range(8)) - inside))
        for expected in live:
            expected.check(table)
        assert all(not value[0].any() for value in contents(table).values())
        ends += sum(e.state is not None and e.state.phase is Phase.ANSWERING for e in live)
        live = [expected for expected in live if rng.random() < 0.9]
    assert ends > 0  # the run reached the answering phase


@pytest.mark.parametrize("noise_name", ["none", "gumbel", "dirichlet"])
def test_a_resumed_request_goes_on_as_if_nothing_had_happened(noise_name: str) -> None:
    """Retracted after 5 steps, in another slot and among others: the same concepts."""
    params = replace(
        PARAMS,
        noise=noise_name,
        early_stopping_entropy_threshold=2.5,
        early_stopping_length_threshold=9,
    )
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(12, VOCAB, generator=generator)
    request, resumed, other = Request(2, params), Request(6, params), Request(1, PARAMS)
    table = started(request, other)
    whole, pieces, emitted = [], [], []
    for t in range(12):
        ids, _ = run(table, [request], logits[t : t + 1], SAMPLED[:1])
        whole.append(fed(table, 2))
        emitted.append(ids.item())
        if t == 4:
            state = {"run": int(table.rows.run[2]), "step": 5}
    assert THINK_END in emitted[5:]  # Cold Stop's run went across the retraction

    table.start([resumed.start(**state)])
    for t in range(5, 12):
        both = torch.stack([logits[(t + 1) % 12], logits[t]])
        ids, _ = run(table, [other, resumed], both, SAMPLED[:2])
        pieces.append(fed(table, 6))
        answering = THINK_END in emitted[5:t]
        assert ids[1] == (31 if answering else emitted[t])
    for piece, expected in zip(pieces, whole[5:], strict=True):
        assert_same(piece, expected, tolerances.ACROSS_BATCHES)


def test_a_narrow_step_leaves_no_columns_of_a_wide_one() -> None:
    narrow = Request(2, replace(PARAMS, max_topk=2))
    wide = Request(3, replace(PARAMS, max_topk=6))
    table = started(narrow, wide)
    logits = logits_of(range(10, 16), range(20, 26), gap=0.1)
    run(table, [narrow, wide], logits, SAMPLED[:2])
    assert [len(fed(table, slot)) for slot in (2, 3)] == [2, 6]
    run(table, [narrow], logits[1:], SAMPLED[:1])
    assert [i for i, _ in fed(table, 2)] == [20, 21]
    run(table, [wide], logits_of([THINK_END, 7], gap=0.1), SAMPLED[:1])
    assert fed(table, 3) == [(THINK_END, 1.0)]
