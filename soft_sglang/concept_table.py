"""The concept table: the next input of every request slot, on the device."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from soft_sglang.concept import Concept, mixtures_of
from soft_sglang.kernels.concept_step import NOISE_DIRICHLET, NOISE_GUMBEL, NOISE_NONE
from soft_sglang.kernels.table_rows import (
    FORCED_LIMIT,
    GUIDED,
    INTEGERS,
    MARKER_LIMIT,
    NO_TOKEN,
    REALS,
    STATE,
    TableRows,
)
from soft_sglang.parameters import SoftThinkingParams
from soft_sglang.policies.policy import MAX_PARAMETERS, MAX_STATE, Policy
from soft_sglang.policies.registry import policy_named
from soft_sglang.state_machine import Phase, ThinkingState

_NOISE_CODES = {"none": NOISE_NONE, "gumbel": NOISE_GUMBEL, "dirichlet": NOISE_DIRICHLET}


class AnswerSampling(NamedTuple):
    """How a request's answer is sampled: its after-thinking parameters or its own."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float


class RowStart(NamedTuple):
    """What a row holds when its request's prefill ends, here or elsewhere."""

    slot: int
    """Request slot, the row's index."""
    params: SoftThinkingParams | None
    """None: a discrete request, or a prefill that goes on."""
    answer: AnswerSampling | None = None
    state: ThinkingState | None = None
    """Where its thinking is; None: a discrete request."""
    step: int = 0
    """Number of tokens the request has emitted."""
    policy_state: Sequence[float] = ()
    """What its policy remembers."""
    concept: Concept | None = None
    """The next input; None: the emitted token, or what a prefill is about to compute."""


class GuidedRows(NamedTuple):
    """What rows in the phase GUIDED have besides; ``R`` rows."""

    parameters: torch.Tensor
    """``[R, MAX_PARAMETERS]`` float64, of the policy; written at the start."""
    state: torch.Tensor
    """``[R, MAX_STATE]`` float64, of the policy; written at the start, by the sampler, and where a
    thought begins again."""
    answering: torch.Tensor
    """``[R]`` bool, thinking is over and the policy goes on; written as the state."""
    fed_hidden: torch.Tensor
    """``[R]`` bool, the next input is the hidden state; written as the state."""


class ConceptTable:
    """One row per request slot, at a fixed address, so that a captured graph can read it.

    Row 0 is the padding row and stays discrete. Rows are started by the forward of a prefill's last
    chunk, or by the first decode step of a request that was prefilled elsewhere, changed by the
    sampler, and read by the embedding and the sampler; everything happens on the forward stream, in
    order.

    The next input and the state are written at the start and by the sampler, the parameters at the
    start only.
    """

    def __init__(self, rows: int, width: int, device: torch.device | str) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.device = torch.device(device)
        self.width = width
        self.rows = TableRows(
            ids=zeros(rows, width),
            weights=zeros(rows, width, dtype=torch.float32),
            state=zeros(rows, len(STATE)),
            integers=zeros(rows, len(INTEGERS)),
            reals=zeros(rows, len(REALS), dtype=torch.float32),
            end_ids=zeros(rows, MARKER_LIMIT),
            forced_ids=zeros(rows, FORCED_LIMIT),
        )
        self.guided = GuidedRows(
            parameters=zeros(rows, MAX_PARAMETERS, dtype=torch.float64),
            state=zeros(rows, MAX_STATE, dtype=torch.float64),
            answering=zeros(rows, dtype=torch.bool),
            fed_hidden=zeros(rows, dtype=torch.bool),
        )
        self.hidden: torch.Tensor | None = None
        """``[R, D]``, last hidden states of rows that are fed them; None until a request needs it.
        Written by the sampler, read by the embedding."""
        self._soft_slots: set[int] = set()

    def hidden_rows(self, like: torch.Tensor) -> torch.Tensor:
        """:attr:`hidden`, allocated now if it is not there; ``like`` is ``[N, D]``."""
        if self.hidden is None:
            self.hidden = torch.zeros(
                self.rows.phase.shape[0], like.shape[1], dtype=like.dtype, device=self.device
            )
        return self.hidden

    def start(self, starts: Sequence[RowStart]) -> None:
        """Start the rows of requests whose prefill, or first decode step, is about to run.

        Discrete requests cost nothing unless their slot was a soft request's before.
        """
        starts = [s for s in starts if s.params is not None or s.slot in self._soft_slots]
        if not starts:
            return
        for start in starts:
            if start.params is None:
                self._soft_slots.discard(start.slot)
            else:
                self._soft_slots.add(start.slot)
        integers = self._upload(
            [
                [s.slot, *_state_row(s), *_integer_row(s.params, s.answer), *_markers(s.params)]
                for s in starts
            ],
            torch.int64,
        )
        reals = self._upload([_real_row(s.params, s.answer) for s in starts], torch.float32)
        rows = self.rows
        widths = (1, len(STATE), len(INTEGERS), MARKER_LIMIT, FORCED_LIMIT)
        slot, state, parameters, end_ids, forced_ids = integers.split(widths, dim=1)
        slots = slot[:, 0]
        rows.weights.index_fill_(0, slots, 0.0)
        rows.state.index_copy_(0, slots, state)
        rows.integers.index_copy_(0, slots, parameters)
        rows.reals.index_copy_(0, slots, reals)
        rows.end_ids.index_copy_(0, slots, end_ids)
        rows.forced_ids.index_copy_(0, slots, forced_ids)
        self.guided.fed_hidden.index_fill_(0, slots, False)
        self._start_guided([s for s in starts if _policy_of(s) is not None])
        self._start_inputs([(s.slot, s.concept) for s in starts if s.concept is not None])

    def _start_guided(self, starts: Sequence[RowStart]) -> None:
        if not starts:
            return
        columns = self._upload(
            [
                [
                    s.slot,
                    _phase_of(s) is Phase.ANSWERING,
                    *padded(s.params.policy_parameters if s.params else (), MAX_PARAMETERS, 0.0),
                    *padded(s.policy_state, MAX_STATE, 0.0),
                ]
                for s in starts
            ],
            torch.float64,
        )
        slots, guided = columns[:, 0].long(), self.guided
        guided.answering.index_copy_(0, slots, columns[:, 1] > 0)
        guided.parameters.index_copy_(0, slots, columns[:, 2 : 2 + MAX_PARAMETERS])
        guided.state.index_copy_(0, slots, columns[:, 2 + MAX_PARAMETERS :])

    def _start_inputs(self, inputs: Sequence[tuple[int, Concept]]) -> None:
        """Write the next inputs of slots."""
        if not inputs:
            return
        slots = self._upload([[slot] for slot, _ in inputs], torch.int64)[:, 0]
        mixtures = mixtures_of([concept for _, concept in inputs], self.width).to(self.device)
        self.rows.ids.index_copy_(0, slots, mixtures.ids)
        self.rows.weights.index_copy_(0, slots, mixtures.weights)
        if mixtures.hidden is not None and mixtures.fed_hidden is not None:
            self.guided.fed_hidden.index_copy_(0, slots, mixtures.fed_hidden)
            self.hidden_rows(mixtures.hidden).index_copy_(0, slots, mixtures.hidden)

    def _upload(self, rows: list[list[float]], dtype: torch.dtype) -> torch.Tensor:
        host = torch.tensor(rows, dtype=dtype, pin_memory=self.device.type == "cuda")
        return host.to(self.device, non_blocking=True)


def _integer_row(params: SoftThinkingParams | None, answer: AnswerSampling | None) -> list[int]:
    if params is None or answer is None:
        return [0] * len(INTEGERS)
    return [
        params.max_topk,
        _NOISE_CODES[params.noise],
        params.seed,
        params.early_stopping_length_threshold,
        params.max_thinking_steps,
        len(params.rules.end_ids),
        len(params.rules.forced_ids),
        params.rules.forced_ids[0],
        answer.top_k,
    ]


def _real_row(params: SoftThinkingParams | None, answer: AnswerSampling | None) -> list[float]:
    if params is None or answer is None:
        return [0.0] * len(REALS)
    return [
        params.gumbel_softmax_temperature,
        params.dirichlet_alpha,
        params.early_stopping_entropy_threshold,
        answer.temperature,
        answer.top_p,
        answer.min_p,
    ]


def _markers(params: SoftThinkingParams | None) -> list[int]:
    if params is None:
        return [NO_TOKEN] * (MARKER_LIMIT + FORCED_LIMIT)
    return [
        *padded(params.rules.end_ids, MARKER_LIMIT, NO_TOKEN),
        *padded(params.rules.forced_ids, FORCED_LIMIT, NO_TOKEN),
    ]


def _state_row(start: RowStart) -> list[int]:
    state = start.state
    if state is None:
        return [0] * len(STATE)
    columns = {
        "phase": _phase_code(start),
        "run": state.run,
        "step": start.step,
        "thought": state.steps,
        "forced": state.forced,
        "matched": state.matched,
    }
    return [columns[name] for name in STATE]


def _policy_of(start: RowStart) -> Policy | None:
    return None if start.params is None else policy_named(start.params.policy)


def _phase_of(start: RowStart) -> Phase:
    return Phase.DISCRETE if start.state is None else start.state.phase


def _phase_code(start: RowStart) -> int:
    """The row's phase as the kernels see it."""
    policy, phase = _policy_of(start), _phase_of(start)
    goes_on = policy is not None and (phase is Phase.THINKING or policy.mixes_answer)
    return GUIDED if goes_on else phase


def padded(values: Sequence[Any], length: int, filler: Any) -> list[Any]:
    """The values, filled up to a length."""
    return [*values, *[filler] * (length - len(values))]
