"""One step of rows that follow a policy: oracle, stock sampling, neighbours, a resume."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_models
import tolerances
import torch
from one_thread import one_thread  # noqa: F401 - the import switches it on
from policy_oracle import GREEDY, GuidedRequest, Sampling, Thinker
from scipy import stats
from sglang.srt.layers.sampler import top_k_top_p_min_p_sampling_from_probs_torch
from test_host_sync import no_host_sync

from soft_sglang.concept_sampler import BatchPlan, ConceptStep, plan_batch
from soft_sglang.concept_table import AnswerSampling, ConceptTable, RowStart
from soft_sglang.kernels.sampling import Sampling as BatchSampling
from soft_sglang.kernels.table_rows import ANSWERING, DISCRETE, GUIDED, THINKING
from soft_sglang.markers import Vocabulary
from soft_sglang.options import ServerOptions
from soft_sglang.parameters import SoftThinkingParams, read_request
from soft_sglang.patches.scheduler.step_output import DeviceOutput, GuidedOutput
from soft_sglang.row_parameters import RowParameters
from soft_sglang.state_machine import Phase, ThinkingState
from soft_sglang.trace import RequestTrace

VOCAB, HIDDEN, STEPS = 50, 8, 16
TOP_K_OFF = 1 << 30
PROMPT_LENGTH = 5
MARGIN = 1e-6
"""Of every decision of the oracle; it sees the same logits, in float64."""
VOCABULARY = Vocabulary(tiny_models.tokenizer(), tiny_models.VOCAB_SIZE)


# Rows.


@dataclass
class Row:
    """A request in a slot; ``request`` None is a discrete one."""

    slot: int
    request: GuidedRequest | None
    soft: dict[str, Any] | None = None
    """Instead of a policy: the parameters of soft thinking."""
    params: SoftThinkingParams | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.request is None:
            return
        asked = self.request.sampling_params()
        soft = read_request(self.soft or asked["soft_thinking"], {}, ServerOptions())
        assert soft is not None
        self.params = soft.resolve(VOCABULARY, self.request.prompt, self.request.seed, asked)

    @property
    def sampling(self) -> AnswerSampling:
        return _normal(Sampling() if self.request is None else self.request.sampling)

    @property
    def answer(self) -> AnswerSampling:
        return self.sampling if self.request is None else _normal(self.request.answer)

    def start(self) -> RowStart:
        state = None if self.params is None else ThinkingState(self.params.rules)
        return RowStart(self.slot, self.params, self.answer, state)

    def trace(self) -> RequestTrace | None:
        if self.params is None:
            return None
        return RequestTrace(self.params, PROMPT_LENGTH, self.answer, self.sampling.top_k)


def _normal(sampling: Sampling) -> AnswerSampling:
    temperature, top_k, top_p, min_p = sampling.normal
    return AnswerSampling(temperature, top_p, top_k or TOP_K_OFF, min_p)


def started(rows: Sequence[Row], slots: int, device: str = "cpu") -> ConceptTable:
    table = ConceptTable(slots, 32, device)
    table.start([row.start() for row in rows])
    return table


def plan_of(rows: Sequence[Row], device: str = "cpu") -> BatchPlan:
    parameters = [RowParameters(row.params, row.sampling.top_k, row.answer) for row in rows]
    plan = plan_batch(parameters, torch.device(device))
    assert plan is not None
    return plan


def sampling_of(rows: Sequence[Row], device: str = "cpu") -> BatchSampling:
    columns = [list(column) for column in zip(*(row.sampling for row in rows), strict=True)]
    temperatures, top_ps, top_ks, min_ps = columns
    return BatchSampling(
        temperatures=torch.tensor(temperatures, device=device)[:, None],
        top_ps=torch.tensor(top_ps, device=device),
        top_ks=torch.tensor(top_ks, dtype=torch.int32, device=device),
        min_ps=torch.tensor(min_ps, device=device),
    )


def advance(
    table: ConceptTable,
    rows: Sequence[Row],
    logits: torch.Tensor,
    hidden: torch.Tensor,
    samples: bool = False,
) -> tuple[torch.Tensor, ConceptStep]:
    """One step: the emitted ids (40 where they are left to another sampler), and the step."""
    plan = plan_of(rows)
    step = ConceptStep(table, plan, torch.tensor([row.slot for row in rows]))
    assert plan.step.samples or not samples
    step.think(logits, sampling_of(rows), replace(plan.step, samples=samples), hidden=hidden)
    ids = step.final_ids(None if samples else torch.full((len(rows),), 40))
    step.rethink(ids)
    return ids, step


def record(traces: Sequence[RequestTrace | None], ids: torch.Tensor, step: ConceptStep) -> None:
    """What the scheduler does with a step."""
    assert step.output is not None
    guided = [
        GuidedOutput(plan.positions, result)
        for plan, result in zip(step.plan.guided, step.guided, strict=True)
    ]
    output = DeviceOutput(step.plan.positions, step.output, guided).copy_to_host(torch.clone)
    reqs = [SimpleNamespace(soft_thinking=trace) for trace in traces]
    output.consume(
        SimpleNamespace(reqs=reqs), [SimpleNamespace(token_ids=[i]) for i in ids.tolist()]
    )


def fed(table: ConceptTable, slot: int, emitted: torch.Tensor) -> dict[int, float] | None:
    """The next input of a row as the embedding sees it; None: the hidden state."""
    if table.guided.fed_hidden[slot]:
        return None
    ids, weights = table.rows.ids[slot].tolist(), table.rows.weights[slot].tolist()
    assert len(set(ids[: np.count_nonzero(weights)])) >= np.count_nonzero(weights) - 1
    if not any(weights[1:]):
        return {int(emitted): 1.0}
    mixture: dict[int, float] = {}
    for i, w in zip(ids, weights, strict=True):
        mixture[i] = mixture.get(i, 0.0) + w
    return {i: w for i, w in mixture.items() if w}


def assert_mixture(
    got: dict[int, float] | None, expected: dict[int, float] | None, **tolerance: float
) -> None:
    assert (got is None) == (expected is None)
    if got is None or expected is None:
        return
    for token in got.keys() | expected.keys():
        assert got.get(token, 0.0) == pytest.approx(
            expected.get(token, 0.0), **(tolerance or {"rel": 2e-5, "abs": 2e-6})
        )


# Random requests and logits.

OWN: dict[str, list[dict[str, Any]]] = {
    "discrete": [{}],
    "average_embedding": [{}],
    "coconut_tf": [{}],
    "mixture_of_inputs": [{}, {"moi_beta": 0}, {"moi_beta": 0.5}, {"moi_beta": 2}],
    "swi_reasoning": [
        {"swi_window_size": 1},
        {"swi_window_size": 2, "swi_alpha": 0.5},
        {"swi_window_size": 1, "swi_alpha": 0.0, "swi_beta": 0.2},
        {"swi_window_size": 3, "swi_max_switch_count": 1},
        {"swi_window_size": 1, "swi_max_switch_count": 2, "swi_beta": 1.0},
    ],
    "selar": [
        {},
        {"selar_entropy_threshold": 0, "selar_topk": 6},
        {"selar_entropy_threshold": 0.8, "selar_contrastive_weight": 0},
        {"selar_entropy_threshold": 0.3, "selar_contrastive_weight": 3, "selar_topk": 2},
    ],
}
SAMPLINGS = [
    Sampling(),
    Sampling(0.6, 30, 0.95, 0.001),
    Sampling(1.2, top_k=5),
    Sampling(0.8, top_k=8, top_p=0.7),
    Sampling(0.9, top_p=0.8),
    Sampling(1.5, min_p=0.1),
    GREEDY,
]


ENDS: list[dict[str, Any]] = [
    {"think_end": 3},
    {"think_end": 20},
    {"think_end": 20, "cold_stop": (7, 20)},
    {"end": (3, 20)},
    {"end": (20, 3, 20, 20), "cold_stop": (7, 8, 20, 3, 20, 20)},
    {"end": (20, 20, 3)},
    {"end": (20, 3), "first_token": True},
    {"end": (3, 20, 7), "cold_stop": (8, 3, 20, 7), "first_token": True},
]
"""One token, and several; the last tokens of what is forced are the marker."""
ONE_TOKEN = ENDS[:3]


def random_requests(count: int, seed: int) -> list[GuidedRequest]:
    """As many of every policy."""
    rng = np.random.default_rng(seed)

    def one_of(options: Sequence[Any]) -> Any:
        return options[rng.integers(len(options))]

    return [
        GuidedRequest(
            policy,
            [],
            one_of(SAMPLINGS),
            steps=STEPS,
            seed=int(rng.integers(-(2**63), 2**63)),
            max_topk=one_of([1, 2, 5, 10, 31]),
            entropy_threshold=one_of([None, None, None, 0, 1.5, 10.0]),
            length_threshold=one_of([1, 3, 6, 12]),
            budget=one_of([None, None, None, None, 0, 2, 7]),
            **one_of(ONE_TOKEN if policy == "swi_reasoning" else ENDS),
            parameters=one_of(OWN[policy]),
            answer=one_of(SAMPLINGS),
        )
        for _ in range(count)
        for policy in OWN
    ]


def random_logits(rows: int, seed: int) -> Iterator[torch.Tensor]:
    """``[rows, VOCAB]`` for every step, from sure to unsure; id 3 and 20 are rarely heavy."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        scale = 0.3 + 5 * torch.rand(rows, 1, generator=generator)
        logits = torch.randn(rows, VOCAB, generator=generator) * scale
        logits[:, [3, 20]] -= 2
        yield logits


def favour_markers(logits: torch.Tensor, thinkers: Sequence[Thinker], number: int) -> None:
    """Make think-ends come about: for six steps in every fourth row, then in others."""
    for row, (own, thinker) in enumerate(zip(logits, thinkers, strict=False)):
        if (row + number // 6) % 4 == 0:
            marker, emitted = thinker.request.marker, thinker.ids
            begun = [n for n in range(1, len(marker)) if emitted[-n:] == marker[:n]]
            own[marker[max(begun, default=0)]] = own.max() + 6


def hidden_states(rows: int, step: int) -> torch.Tensor:
    return torch.arange(rows * HIDDEN).view(rows, HIDDEN) + 1000.0 * step


# Against the oracle.


@pytest.mark.parametrize("samples", [False, True])
def test_every_policy_equals_its_oracle(samples: bool, caplog: pytest.LogCaptureFixture) -> None:
    """In one batch, with discrete rows and soft thinking between; markers of every length."""
    requests = random_requests(40, seed=int(samples))
    if samples:
        requests = [
            replace(r, answer=r.answer if r.answer.top_k else Sampling(0.9, 6, 0.8))
            for r in requests
        ]
    rows = [Row(1 + 2 * i, request) for i, request in enumerate(requests)]
    rows += [Row(2, None), Row(4, requests[0], soft={"max_topk": 3, "noise": "gumbel"})]
    thinkers = [Thinker(request) for request in requests]
    traces = [row.trace() for row in rows]
    table = started(rows, slots=2 * len(rows))
    clear = np.ones(len(requests), dtype=bool)
    seen = {name: set() for name in OWN}
    for number, logits in enumerate(random_logits(len(rows), seed=1)):
        favour_markers(logits, thinkers, number)
        hidden = hidden_states(len(rows), number)
        thinking = [thinker.end == "length" for thinker in thinkers]
        ids, step = advance(table, rows, logits, hidden, samples)
        record(traces, ids, step)
        for i, (row, thinker) in enumerate(zip(rows, thinkers, strict=False)):
            mixture = thinker.step(logits[i].double())
            clear[i] &= thinker.margin > MARGIN
            policy = thinker.request.policy
            if not clear[i] or not (thinking[i] or policy == "mixture_of_inputs"):
                continue
            assert ids[i] == thinker.ids[-1], (policy, number)
            assert_mixture(fed(table, row.slot, ids[i]), mixture)
            if mixture is None:
                assert table.hidden is not None
                assert torch.equal(table.hidden[row.slot], hidden[i])
            seen[policy].add("hidden" if mixture is None else min(len(mixture), 2))
            if mixture is not None and min(mixture.values()) < 0:
                seen[policy].add("negative")
            goes_on = thinker.end == "length" or policy == "mixture_of_inputs"
            assert table.rows.phase[row.slot] == (GUIDED if goes_on else ANSWERING)
    assert clear.mean() > 0.9
    assert seen == {
        "discrete": {1},
        "average_embedding": {1, 2},
        "coconut_tf": {"hidden", 1},
        "mixture_of_inputs": {1, 2},
        "swi_reasoning": {1, 2},
        "selar": {1, 2, "negative"},
    }
    for trace, thinker, sure in zip(traces, thinkers, clear, strict=False):
        if trace is None or not sure:
            continue
        answer = trace.report("length")
        assert answer is not None
        assert (answer["steps"], answer["end"]) == (len(thinker.concepts), thinker.end)
        assert answer["entropies"] == pytest.approx(thinker.entropies, rel=1e-5, abs=1e-5)
        for got, want, token in zip(
            answer["concepts"], thinker.concepts, thinker.ids, strict=False
        ):
            assert_mixture(dict(got), dict(want))
            assert not got or token not in dict(got) or got[0][0] == token
            others = [abs(w) for i, w in got if i != token]
            assert others == sorted(others, reverse=True) and all(w for _, w in got)
    ends: dict[str, set[tuple[str, bool]]] = {name: set() for name in OWN}
    for thinker, sure in zip(thinkers, clear, strict=True):
        if sure and thinker.end != "length":
            natural = thinker.end == "think_end"
            tokens = thinker.request.marker if natural else thinker.request.forced
            ends[thinker.request.policy].add((thinker.end, len(tokens) > 1))
    for policy, found in ends.items():
        several = {(end, True) for end in ("think_end", "cold_stop", "budget")}
        assert found >= several or policy == "swi_reasoning", policy
    assert {thinker.end for thinker in thinkers} == {"length", "think_end", "cold_stop", "budget"}
    assert not caplog.records, "host and device disagree"


# Neighbours and the resume.


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    requests = random_requests(6, seed=3)
    rows = [Row(1 + i, request) for i, request in enumerate(requests)]
    together = started(rows, slots=len(rows) + 1)
    alone = [started([row], slots=len(rows) + 1) for row in rows]
    for number, logits in enumerate(random_logits(len(rows), seed=4)):
        hidden = hidden_states(len(rows), number)
        ids, _ = advance(together, rows, logits, hidden)
        for i, row in enumerate(rows):
            own, _ = advance(alone[i], [row], logits[i : i + 1], hidden[i : i + 1])
            assert ids[i] == own[0], row
            assert_mixture(
                fed(together, row.slot, ids[i]),
                fed(alone[i], row.slot, own[0]),
                **tolerances.TRACE_WEIGHT,
            )


def test_a_resumed_row_goes_on_where_it_was() -> None:
    """Moved to another slot after every step, from what the host recorded."""
    requests = random_requests(6, seed=5)
    rows = [Row(1 + i, request) for i, request in enumerate(requests)]
    stays = started(rows, slots=len(rows) + 1)
    moves = started(rows, slots=len(rows) + 1)
    traces = [row.trace() for row in rows]
    thinkers = [Thinker(request) for request in requests]
    inputs: list[list[dict[int, float] | None]] = []
    for number, logits in enumerate(random_logits(len(rows), seed=6)):
        favour_markers(logits, thinkers, number)
        for row, thinker in zip(logits, thinkers, strict=True):
            thinker.step(row.double())
        hidden = hidden_states(len(rows), number)
        expected, _ = advance(stays, rows, logits, hidden)
        ids, step = advance(moves, rows, logits, hidden)
        record(traces, ids, step)
        assert torch.equal(ids, expected)
        for i, row in enumerate(rows):
            assert fed(moves, row.slot, ids[i]) == fed(stays, row.slot, expected[i])
        inputs.append([fed(stays, row.slot, expected[i]) for i, row in enumerate(rows)])
        if number == 8:
            for i, (trace, request) in enumerate(zip(traces, requests, strict=True)):
                assert trace is not None
                _check_resumed_inputs(trace, request, [of_step[i] for of_step in inputs], i)
        moves = ConceptTable(len(rows) + 1, 32, "cpu")
        moves.start(
            [
                trace.row_start(row.slot, emitted=number + 1)
                for row, trace in zip(rows, traces, strict=True)
                if trace is not None
            ]
        )


def _check_resumed_inputs(
    trace: RequestTrace, request: GuidedRequest, fed: list[dict[int, float] | None], row: int
) -> None:
    """The inputs that a prefill after a retraction must repeat are those that were ``fed``."""
    inputs = dict(trace.concepts_between(0, PROMPT_LENGTH + len(fed)))
    assert min(inputs, default=PROMPT_LENGTH) >= PROMPT_LENGTH
    thinking = trace.state.phase is Phase.THINKING
    if request.policy == "discrete":
        assert not inputs
    elif request.policy == "coconut_tf":
        steps = [number for number, mixture in enumerate(fed) if mixture is None]
        assert steps == list(range(len(steps)))
        if len(request.forced) == 1:
            assert len(steps) == trace.state.steps - (not thinking)  # the think-end is a token
        assert list(inputs) == [PROMPT_LENGTH + number for number in steps]
        for position, concept in inputs.items():
            expected = hidden_states(row + 1, position - PROMPT_LENGTH)[row]
            assert concept.hidden is not None and torch.equal(concept.hidden, expected)
    else:
        assert all(concept.hidden is None for concept in inputs.values())
        if request.policy == "mixture_of_inputs" or thinking:
            expected_positions = [PROMPT_LENGTH + i for i, m in enumerate(fed) if len(m or ()) > 1]
            assert list(inputs) == expected_positions


@pytest.mark.parametrize("policy", OWN)
def test_a_slot_forgets_its_former_owner(policy: str) -> None:
    """A discrete request in it is fed its tokens; another policy starts afresh."""
    request = GuidedRequest(policy, [], steps=STEPS, parameters=OWN[policy][-1])
    old, logits = Row(2, request), next(random_logits(1, seed=7))
    table = started([old], slots=4)
    for number in range(5):
        advance(table, [old], logits + number % 2, hidden_states(1, number))
    table.start([RowStart(2, None)])
    assert table.rows.phase[2] == DISCRETE
    assert table.rows.weights[2].count_nonzero() == 0 and not table.guided.fed_hidden[2]
    for other in OWN:
        new = Row(2, replace(request, policy=other, parameters=OWN[other][-1]))
        fresh = started([new], slots=4)
        table.start([old.start()])
        advance(table, [old], logits, hidden_states(1, 0))
        table.start([new.start()])
        for number, step_logits in enumerate(random_logits(1, seed=8)):
            hidden = hidden_states(1, number)
            got, _ = advance(table, [new], step_logits, hidden)
            want, _ = advance(fresh, [new], step_logits, hidden)
            assert got == want and fed(table, 2, got[0]) == fed(fresh, 2, want[0])


def test_phase_codes() -> None:
    rows = [Row(1 + i, GuidedRequest(policy, [])) for i, policy in enumerate(OWN)]
    soft = Row(20, GuidedRequest("discrete", []), soft={"max_topk": 3})
    table = started([*rows, soft, Row(21, None)], slots=30)
    assert table.rows.phase[1 : 1 + len(rows)].tolist() == [GUIDED] * len(rows)
    assert table.rows.phase[[20, 21]].tolist() == [THINKING, DISCRETE]
    assert not table.guided.answering.any() and not table.guided.fed_hidden.any()
    answering = [
        RowStart(10 + i, row.params, row.answer, ThinkingState(row.params.rules, Phase.ANSWERING))
        for i, row in enumerate(rows)
    ]
    table.start(answering)
    for i, policy in enumerate(OWN):
        goes_on = policy == "mixture_of_inputs"
        assert table.rows.phase[10 + i] == (GUIDED if goes_on else ANSWERING)
        assert bool(table.guided.answering[10 + i]) or not goes_on


# Stock sampling.

DRAWS = 6_000
STOCK_SAMPLINGS = {
    "unfiltered": Sampling(),
    "temperature": Sampling(0.6),
    "top-k": Sampling(top_k=6),
    "top-p": Sampling(top_p=0.7),
    "min-p": Sampling(min_p=0.1),
    "top-p within top-k": Sampling(top_k=6, top_p=0.6),
    "all": Sampling(0.8, 12, 0.8, 0.05),
    "greedy": GREEDY,
}


def _stock_distribution(logits: torch.Tensor, sampling: AnswerSampling) -> torch.Tensor:
    """What SGLang's PyTorch sampler draws from, ``[V]``."""
    probabilities = torch.softmax(logits / sampling.temperature, -1)[None]
    result = top_k_top_p_min_p_sampling_from_probs_torch(
        probabilities,
        torch.tensor([sampling.top_k]),
        torch.tensor([sampling.top_p]),
        torch.tensor([sampling.min_p]),
        need_min_p_sampling=True,
        sampling_seed=None,
        positions=torch.tensor([0]),
        return_filtered_probs=True,
    )
    weights, ids = result[1], result[2]
    expected = torch.zeros_like(probabilities).scatter(-1, ids.long(), weights)[0].double()
    return expected / expected.sum()


@pytest.mark.parametrize("name", STOCK_SAMPLINGS)
def test_discrete_draws_as_stock_sampling(name: str) -> None:
    """Over seeds, one position; chi-square against the sampler's own filtered distribution."""
    request = GuidedRequest("discrete", [], STOCK_SAMPLINGS[name])
    row = Row(1, request)
    table = ConceptTable(DRAWS + 1, 32, "cpu")
    slots = torch.arange(1, DRAWS + 1)
    seeds = torch.randint(-(2**63), 2**63 - 1, (DRAWS,), generator=torch.Generator().manual_seed(1))
    table.start(
        [
            row.start()._replace(slot=int(slot), params=replace(row.params, seed=int(seed)), step=7)
            for slot, seed in zip(slots, seeds, strict=True)
        ]
    )
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(9)) * 1.5
    plan = plan_of([row] * DRAWS)
    batch = ConceptStep(table, plan, slots)
    sampling = BatchSampling(*(v.expand(DRAWS, *v.shape[1:]) for v in sampling_of([row])))
    batch.think(logits.expand(DRAWS, -1), sampling, replace(plan.step, samples=False))
    ids = batch.final_ids(torch.zeros(DRAWS, dtype=torch.int64))
    expected = _stock_distribution(logits, row.sampling)
    counts = torch.bincount(ids, minlength=VOCAB).double()
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    if kept.sum() > 1:
        test = stats.chisquare(counts[kept].numpy(), (expected[kept] * DRAWS).numpy())
        assert test.pvalue > tolerances.P_VALUE
    else:
        assert counts[kept] == DRAWS


def test_where_top_k_is_off_the_heaviest_1024_are_drawn_from() -> None:
    """As the documentation says; tokens beyond them are not, though stock sampling would."""
    vocab = 3000
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(2))
    rows = [Row(1 + i, GuidedRequest("discrete", [], seed=i)) for i in range(2000)]
    table = started(rows, slots=len(rows) + 1)
    ids, _ = advance(table, rows, logits.expand(len(rows), -1), hidden_states(len(rows), 0))
    p = torch.softmax(logits.double(), -1)
    heaviest = p.topk(1024).indices
    assert torch.isin(ids, heaviest).all()
    inside = p[heaviest] / p[heaviest].sum()
    places = (ids[:, None] == heaviest).nonzero()[:, 1]
    shares = torch.bincount(places // 64, minlength=16).numpy()
    expected = inside.view(16, 64).sum(-1).numpy() * len(rows)
    assert stats.chisquare(shares, expected).pvalue > tolerances.P_VALUE


def test_cold_stop_alone_is_greedy_until_it_stops() -> None:
    request = GuidedRequest(
        "discrete", [], GREEDY, steps=STEPS, entropy_threshold=10.0, length_threshold=9
    )
    row = Row(3, request)
    table = started([row], slots=4)
    steps = list(random_logits(1, seed=10))
    ids = [advance(table, [row], logits, hidden_states(1, 0))[0].item() for logits in steps]
    assert ids[:8] == [int(logits.argmax()) for logits in steps[:8]]
    assert ids[8:] == [request.think_end] + [40] * (STEPS - 9)


# Grammars, tensor parallelism, the host.


@pytest.mark.parametrize("policy", OWN)
def test_a_grammar_that_forbids_the_think_end_delays_it(policy: str) -> None:
    parameters = OWN[policy][-1]
    stops = "swi_max_switch_count" in parameters
    request = GuidedRequest(
        policy,
        [],
        entropy_threshold=None if stops else 10.0,
        length_threshold=3,
        parameters=parameters,
    )
    row = Row(1, request)
    table = started([row], slots=2)
    free = list(random_logits(1, seed=12))
    thinker = Thinker(request)
    for logits in free:
        thinker.step(logits[0].double())
    due = thinker.ids.index(request.think_end)
    assert due < STEPS - 4
    for number, logits in enumerate(free[: due + 4]):
        logits[:, request.think_end] = -torch.inf if number < due + 3 else -9.0
        ids, step = advance(table, [row], logits, hidden_states(1, number))
        assert step.output is not None
        assert step.output.end_allowed.item() == (number == due + 3)
        assert (ids.item() == request.think_end) == (number == due + 3)


@pytest.mark.parametrize("policy", [name for name in OWN if name != "swi_reasoning"])
def test_a_grammar_interrupts_forced_tokens(policy: str) -> None:
    """They begin again when it allows all of them; the policy goes on meanwhile."""
    request = GuidedRequest(
        policy,
        [],
        GREEDY,
        end=(3, 20),
        cold_stop=(7, 8, 3, 20),
        budget=2,
        parameters=OWN[policy][-1],
    )
    row, trace, thinker = Row(1, request), Row(1, request).trace(), Thinker(request)
    table = started([row], slots=2)
    emitted = []
    for number in range(12):
        logits = 0.1 * next(random_logits(1, seed=number))
        logits[0, 11] = 9.0
        if number in (4, 5):
            logits[0, 20] = -torch.inf
        hidden = hidden_states(1, number)
        ids, step = advance(table, [row], logits, hidden)
        record([trace], ids, step)
        mixture = thinker.step(logits[0].double())
        thinking = table.rows.phase[1] == GUIDED and not table.guided.answering[1]
        assert thinking == (thinker.end == "length") == (number < 9)
        if number < 10:
            emitted.append(ids.item())
            assert emitted == thinker.ids
            assert_mixture(fed(table, 1, ids[0]), mixture)
    assert emitted == [11, 11, 7, 8, 11, 11, 7, 8, 3, 20]
    assert trace is not None and trace.state.end == thinker.end == "budget"


def test_what_the_ranks_agree_on_is_what_counts() -> None:
    """The other rank sees slightly other logits; after the step it has the first one's rows."""
    requests = random_requests(4, seed=13)
    rows = [Row(1 + i, request) for i, request in enumerate(requests)]
    plan, sampling = plan_of(rows), sampling_of(rows)
    mine, theirs = (started(rows, slots=len(rows) + 1) for _ in range(2))
    slots = torch.arange(1, len(rows) + 1)
    for number, logits in enumerate(random_logits(len(rows), seed=14)):
        sent: list[torch.Tensor] = []

        def send(tensor: torch.Tensor, sent: list[torch.Tensor] = sent) -> torch.Tensor:
            sent.append(tensor.clone())
            return tensor

        hidden = hidden_states(len(rows), number)
        first = ConceptStep(mine, plan, slots)
        first.think(logits, sampling, replace(plan.step, samples=False), send, hidden)
        received = iter(sent)
        other = ConceptStep(theirs, plan, slots)
        other.think(
            logits.flip(0),
            sampling,
            replace(plan.step, samples=False),
            lambda _, received=received: next(received),
            hidden,
        )
        assert torch.equal(first.final_ids(slots), other.final_ids(slots))
        for name in ("ids", "weights", "state"):
            assert torch.equal(getattr(mine.rows, name), getattr(theirs.rows, name)), name
        for name in mine.guided._fields:
            assert torch.equal(getattr(mine.guided, name), getattr(theirs.guided, name)), name
        for kept, of_other in zip(first.guided, other.guided, strict=True):
            assert torch.equal(kept.state, of_other.state)
            assert torch.equal(kept.fed_hidden, of_other.fed_hidden)


@pytest.mark.parametrize(
    ("policy", "answer", "expected"),
    [
        ("mixture_of_inputs", GREEDY, 12),
        ("mixture_of_inputs", Sampling(0.9, 20), 20),
        ("mixture_of_inputs", Sampling(), 1024),
        ("discrete", Sampling(), 12),  # its answer is not this step's business
    ],
)
def test_no_more_candidates_than_the_sampling_asks_for(
    policy: str, answer: Sampling, expected: int
) -> None:
    request = GuidedRequest(policy, [], sampling=Sampling(0.7, 12), answer=answer)
    (guided,) = plan_of([Row(1, request)]).guided
    assert guided.candidates == expected


@pytest.mark.parametrize("samples", [False, True])
def test_a_step_does_not_wait_for_the_device(samples: bool) -> None:
    rows = [
        Row(1 + i, GuidedRequest(policy, [], parameters=OWN[policy][-1]))
        for i, policy in enumerate(OWN)
    ]
    rows += [Row(20, None), Row(21, GuidedRequest("discrete", []), soft={"noise": "gumbel"})]
    markers = {"think_end_str": "w7 w8", "think_start_str": "w9 w7", "rethink": True}
    rows += [
        Row(22 + i, GuidedRequest(policy, []), soft={"policy": policy, **markers})
        for i, policy in enumerate(("discrete", "mixture_of_inputs", "soft_thinking"))
    ]
    table, plan, sampling = started(rows, slots=30), plan_of(rows), sampling_of(rows)
    slots = torch.tensor([row.slot for row in rows])
    logits, hidden = next(random_logits(len(rows), seed=15)), hidden_states(len(rows), 0)
    others = None if samples else torch.zeros(len(rows), dtype=torch.int64)
    step_plan = replace(plan.step, samples=samples)
    table.hidden_rows(hidden)
    with no_host_sync():
        step = ConceptStep(table, plan, slots)
        step.answer_sampling(sampling)
        step.think(logits, sampling, step_plan, hidden=hidden)
        step.rethink(step.final_ids(others))

    # nothing can be read on the meta device, not even inside an operator of PyTorch
    table = ConceptTable(30, 32, "meta")
    table.start([row.start() for row in rows if row.params])
    plan, sampling = plan_of(rows, "meta"), sampling_of(rows, "meta")
    step = ConceptStep(table, plan, slots.to("meta"))
    step.answer_sampling(sampling)
    step.think(logits.to("meta"), sampling, step_plan, hidden=hidden.to("meta"))
    final = step.final_ids(None if others is None else others.to("meta"))
    step.rethink(final)
    assert final.shape == (len(rows),)
