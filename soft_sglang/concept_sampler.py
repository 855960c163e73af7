"""The concept sampler: one sampling step of a batch with soft requests.

``plan_batch`` prepares on the host, from parameters alone and only when the batch's composition
changes; ``ConceptStep`` runs on the device without a host synchronisation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from soft_sglang.concept_table import AnswerSampling, ConceptTable
from soft_sglang.guided_step import GuidedPlan, GuidedResult, guided_step, plan_guided
from soft_sglang.kernels.concept_step import DIRICHLET_CANDIDATES
from soft_sglang.kernels.sampling import Sampling
from soft_sglang.kernels.table_rows import where_rows
from soft_sglang.kernels.thinking_step import StepPlan, StepResult, thinking_step
from soft_sglang.parameters import SoftThinkingParams
from soft_sglang.rethinking import (
    RethinkingPlan,
    answering_rows,
    plan_rethinking,
    reopen,
)
from soft_sglang.row_parameters import TOP_K_OFF, RowParameters
from soft_sglang.state_machine import Phase

_SAMPLED_CANDIDATES = 256
"""Largest top-k of rows that are sampled together with the concepts."""


@dataclass(frozen=True)
class BatchPlan:
    """What the host knows about a batch with soft requests."""

    positions: tuple[int, ...]
    """Rows of the batch that the step works on, ascending: those of soft requests, or all."""
    index: torch.Tensor | None
    """The same on the device, int64; None: every row of the batch."""
    step: StepPlan
    """``step.samples``: no row needs another sampler, in any phase."""
    answers: frozenset[AnswerSampling]
    """How requests sample their answers that do so with parameters of their own."""
    guided: tuple[GuidedPlan, ...] = ()
    """The rows of policies other than soft thinking, by policy."""
    rethinking: RethinkingPlan | None = None
    """The rows whose answer may begin another thought."""

    @property
    def feeds_hidden(self) -> bool:
        """Whether the step needs the last hidden states."""
        return any(plan.policy.feeds_hidden for plan in self.guided)


def plan_batch(rows: Sequence[RowParameters], device: torch.device) -> BatchPlan | None:
    """Plan a batch; ``device`` is the table's. None if no request is soft."""
    soft = [(row.soft, row.top_k) for row in rows if row.soft is not None]
    if not soft:
        return None
    rethinking = plan_rethinking(rows, device)
    answers = [row.answer for row in rows]
    samples = all(_is_sampled_here(answer) for answer in answers)
    candidates = [_candidates(params, top_k) for params, top_k in soft]
    if samples:
        candidates += [answer.top_k for answer in answers if answer.top_k < TOP_K_OFF]
    positions = tuple(i for i, row in enumerate(rows) if samples or row.soft is not None)
    index = None
    if len(positions) < len(rows):
        host = torch.tensor(positions, dtype=torch.int64, pin_memory=device.type == "cuda")
        index = host.to(device, non_blocking=True)
    width = max(params.policy_columns or params.max_topk for params, _ in soft)
    seeded = any(params.seeded for params, _ in soft)
    return BatchPlan(
        positions=positions,
        index=index,
        step=StepPlan(
            width=width,
            candidates=max(width, *candidates),
            with_gumbel=any(params.noise == "gumbel" for params, _ in soft),
            with_dirichlet=any(params.noise == "dirichlet" for params, _ in soft),
            samples=samples,
            with_unfiltered=samples and any(_is_unfiltered(answer) for answer in answers),
            seeded_answers=samples and seeded,
            counts_answers=seeded or rethinking is not None,
            end_width=max(len(params.rules.end_ids) for params, _ in soft),
            forced_width=max(len(params.rules.forced_ids) for params, _ in soft),
        ),
        answers=frozenset(r.answer for r in rows if r.soft and r.soft.separate_answer),
        guided=plan_guided(rows, positions, device),
        rethinking=rethinking,
    )


def _candidates(params: SoftThinkingParams, top_k: int) -> int:
    if params.policy_columns:
        return 1  # not this step's business
    if top_k < TOP_K_OFF:
        return max(top_k, params.max_topk)
    if params.noise == "dirichlet":
        return max(DIRICHLET_CANDIDATES, params.max_topk)
    return params.max_topk


def _is_unfiltered(answer: AnswerSampling) -> bool:
    return answer.top_k >= TOP_K_OFF and answer.top_p >= 1.0 and answer.min_p <= 0.0


def _is_sampled_here(answer: AnswerSampling) -> bool:
    """Whether the step's candidates are enough to sample exactly."""
    return answer.top_k <= _SAMPLED_CANDIDATES or _is_unfiltered(answer)


class ConceptStep:
    """One step of a batch with soft requests.

    Call :meth:`answer_sampling` if another sampler runs too, :meth:`think`, and then
    :meth:`final_ids`; the table is written by :meth:`think`, and by :meth:`rethink` at the end.
    """

    def __init__(self, table: ConceptTable, plan: BatchPlan, slots: torch.Tensor) -> None:
        """``slots``: ``[B]`` request slots of the whole batch."""
        self.table = table
        self.plan = plan
        self._slots = slots
        self.output: StepResult | None = None
        """For the rows of :attr:`BatchPlan.positions`."""
        self.guided: tuple[GuidedResult, ...] = ()
        """For the rows of :attr:`BatchPlan.guided`."""
        self._answering: torch.Tensor | None = None
        """Which rows of :attr:`BatchPlan.rethinking` answer."""

    def answer_sampling(self, sampling: Sampling) -> Sampling:
        """The batch's sampling parameters with after-thinking ones where a row is ANSWERING."""
        if not self.plan.answers:
            return sampling
        slots = self._rows(self._slots)
        answering = self.table.rows.phase[slots] == Phase.ANSWERING
        parameters = self.table.rows.parameters(slots)
        rows = sampling.of_rows(self.plan.index).after_thinking(answering, parameters)
        return Sampling(*map(self._scatter, sampling, rows))

    def think(
        self,
        logits: torch.Tensor,
        sampling: Sampling,
        step: StepPlan,
        agree: Callable[[torch.Tensor], torch.Tensor] | None = None,
        hidden: torch.Tensor | None = None,
    ) -> None:
        """Compute the next inputs of rows that are THINKING or GUIDED and write the table.

        Args:
            logits: ``[B, V]``, preprocessed, before temperature; not changed.
            sampling: of the batch, as the requests ask for it.
            step: the plan's, or without ``samples``.
            agree: makes tensor-parallel ranks agree on a tensor.
            hidden: ``[B, D]`` last hidden states, where :attr:`BatchPlan.feeds_hidden`.
        """
        rows, index = self.table.rows, self.plan.index
        if self.plan.rethinking is not None:
            self._answering = answering_rows(self.plan.rethinking, self.table, self._slots)
        output = thinking_step(logits, sampling, rows, self._slots, index, step)
        results = []
        for plan in self.plan.guided:
            own, result = guided_step(
                plan,
                logits,
                sampling,
                self.table,
                self._slots,
                step,
                hidden,
            )
            results.append(result)
            output = _with_guided(output, own, plan.among)
        if agree is not None:
            output = StepResult(*map(agree, output))
            slots = self._rows(self._slots)
            guided = self.table.guided if self.plan.guided else ()
            for column in (rows.ids, rows.weights, rows.state, *guided):
                column[slots] = agree(column[slots])
            pairs = zip(self.plan.guided, results, strict=True)
            results = [self._as_written(*pair) for pair in pairs]
        self.output, self.guided = output, tuple(results)

    def _as_written(self, plan: GuidedPlan, result: GuidedResult) -> GuidedResult:
        """What the host remembers of rows, as the table has it."""
        slots, guided = self._slots[plan.index], self.table.guided
        return result._replace(state=guided.state[slots], fed_hidden=guided.fed_hidden[slots])

    def written(self) -> tuple[StepResult, tuple[GuidedResult, ...]]:
        """The results with what the table holds after the step: what every row is fed next.

        A result as it is has a concept also for rows in a phase in which they take none.
        """
        assert self.output is not None, "think() comes first"
        rows, slots = self.table.rows, self._rows(self._slots)
        width = self.output.ids.shape[1]
        output = self.output._replace(
            ids=rows.ids[slots, :width], weights=rows.weights[slots, :width]
        )
        pairs = zip(self.plan.guided, self.guided, strict=True)
        return output, tuple(self._as_written(*pair) for pair in pairs)

    def final_ids(self, sampled: torch.Tensor | None) -> torch.Tensor:
        """The batch's ids ``[B]``.

        Args:
            sampled: the ids of another sampler, kept where a row is not THINKING; None: the step
                sampled those rows too.
        """
        assert self.output is not None, "think() comes first"
        if sampled is None:
            return self.output.token.to(torch.int32)
        token = self.output.token.to(sampled.dtype)
        return self._scatter(sampled, torch.where(token >= 0, token, self._rows(sampled)))

    def rethink(self, ids: torch.Tensor) -> None:
        """Let the batch's ids ``[B]`` begin a thought again where they may."""
        if self.plan.rethinking is not None:
            assert self._answering is not None, "think() comes first"
            reopen(self.plan.rethinking, self.table, self._slots, ids, self._answering)

    def _rows(self, batch: torch.Tensor) -> torch.Tensor:
        return batch if self.plan.index is None else batch.index_select(0, self.plan.index)

    def _scatter(self, batch: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return rows if self.plan.index is None else batch.index_copy(0, self.plan.index, rows)


def _with_guided(output: StepResult, guided: StepResult, among: torch.Tensor) -> StepResult:
    """The step's result with the rows of one policy put in where they are GUIDED."""
    mask = guided.token >= 0
    columns = []
    for column, own in zip(output, guided, strict=True):
        merged = where_rows(mask, own.to(column.dtype), column.index_select(0, among))
        columns.append(column.index_copy(0, among, merged))
    return StepResult(*columns)
