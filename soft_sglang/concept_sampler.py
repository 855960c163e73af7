"""The concept sampler: one sampling step of a batch with soft requests.

``plan_batch`` prepares on the host, from parameters alone and only when the batch's composition
changes; ``ConceptStep`` runs on the device without a host synchronisation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from soft_sglang.concept_table import ConceptTable
from soft_sglang.kernels.concept_step import ConceptRows, Concepts, concept_step
from soft_sglang.kernels.thinking_state import advance
from soft_sglang.parameters import SoftThinkingParams
from soft_sglang.state_machine import Phase

DIRICHLET_CANDIDATES = 256
"""Tokens that Dirichlet noise is drawn for when top-k is off."""


@dataclass(frozen=True)
class BatchPlan:
    """What the host knows about the soft requests of a batch."""

    positions: tuple[int, ...]
    """Rows of the batch that belong to soft requests, ascending."""
    index: torch.Tensor | None
    """The same on the device, int64; None: every row of the batch."""
    width: int
    """Largest ``max_topk``."""
    candidates: int
    with_gumbel: bool
    with_dirichlet: bool
    with_answer_sampling: bool
    """Some request samples its answer with parameters of its own."""


def plan_batch(
    soft: Sequence[tuple[SoftThinkingParams, int] | None], device: torch.device
) -> BatchPlan | None:
    """Plan a batch.

    Args:
        soft: per row the parameters and the ``top_k`` of a soft request, None for a discrete one.
        device: of the table.

    Returns:
        None if no request is soft.
    """
    rows = [(i, *entry) for i, entry in enumerate(soft) if entry is not None]
    if not rows:
        return None
    positions = tuple(i for i, _, _ in rows)
    index = None
    if len(positions) < len(soft):
        host = torch.tensor(positions, dtype=torch.int64, pin_memory=device.type == "cuda")
        index = host.to(device, non_blocking=True)
    return BatchPlan(
        positions=positions,
        index=index,
        width=max(params.max_topk for _, params, _ in rows),
        candidates=max(_candidates(params, top_k) for _, params, top_k in rows),
        with_gumbel=any(params.noise == "gumbel" for _, params, _ in rows),
        with_dirichlet=any(params.noise == "dirichlet" for _, params, _ in rows),
        with_answer_sampling=any(params.separate_answer for _, params, _ in rows),
    )


_TOP_K_OFF = 1 << 30


def _candidates(params: SoftThinkingParams, top_k: int) -> int:
    if top_k < _TOP_K_OFF:
        return max(top_k, params.max_topk)
    if params.noise == "dirichlet":
        return max(DIRICHLET_CANDIDATES, params.max_topk)
    return params.max_topk


class Sampling(NamedTuple):
    """Sampling parameters of a batch."""

    temperatures: torch.Tensor
    """``[B, 1]`` float32."""
    top_ps: torch.Tensor
    """``[B]`` float32."""
    top_ks: torch.Tensor
    """``[B]`` int32."""
    min_ps: torch.Tensor
    """``[B]`` float32."""


class StepOutput(NamedTuple):
    """What the scheduler learns of a step, for the ``S`` rows of :attr:`BatchPlan.positions`."""

    ids: torch.Tensor
    """``[S, K]`` int64, the concept: what is fed next."""
    weights: torch.Tensor
    """``[S, K]`` float32."""
    entropy: torch.Tensor
    """``[S]`` float32, nats."""
    proposal: torch.Tensor
    """``[S]`` int64, the heaviest token before Cold Stop."""
    think_end_allowed: torch.Tensor
    """``[S]`` bool."""


class ConceptStep:
    """One step of the soft rows of a batch.

    Call :meth:`answer_sampling`, :meth:`think`, :meth:`final_ids` in this order; the table is
    written by :meth:`think`.
    """

    def __init__(self, table: ConceptTable, plan: BatchPlan, slots: torch.Tensor) -> None:
        """``slots``: ``[B]`` request slots of the whole batch."""
        self.table = table
        self.plan = plan
        self._slots = slots if plan.index is None else slots[plan.index]
        self._phase = table.phase[self._slots]
        self._parameters = table.parameters(self._slots)
        self._token: torch.Tensor | None = None
        self.output: StepOutput | None = None

    def answer_sampling(self, sampling: Sampling) -> Sampling:
        """The batch's sampling parameters with after-thinking ones where a row is ANSWERING."""
        if not self.plan.with_answer_sampling:
            return sampling
        answering = self._phase == Phase.ANSWERING
        names = ("answer_temperature", "answer_top_p", "answer_top_k", "answer_min_p")
        replaced = []
        for own, name in zip(sampling, names, strict=True):
            rows = self._rows(own)
            after = self._parameters[name].to(own.dtype).view(rows.shape)
            replaced.append(
                self._scatter(own, torch.where(answering.view(rows.shape), after, rows))
            )
        return Sampling(*replaced)

    def think(
        self,
        logits: torch.Tensor,
        sampling: Sampling,
        agree: Callable[[Concepts], Concepts] | None = None,
    ) -> None:
        """Compute the concepts of rows that are THINKING and write the table.

        Args:
            logits: ``[B, V]``, preprocessed, before temperature; not changed.
            sampling: of the batch.
            agree: makes tensor-parallel ranks agree on the concepts; everything else of a step
                follows from them.
        """
        table, parameters = self.table, self._parameters
        thinking = self._phase == Phase.THINKING
        rows = self._rows(logits)
        concepts = concept_step(
            rows,
            ConceptRows(
                temperature=self._rows(sampling.temperatures).view(-1),
                top_k=self._rows(sampling.top_ks).long(),
                top_p=self._rows(sampling.top_ps),
                min_p=self._rows(sampling.min_ps),
                max_topk=parameters["max_topk"],
                noise=parameters["noise"],
                gumbel_temperature=parameters["gumbel_temperature"],
                dirichlet_alpha=parameters["dirichlet_alpha"],
                seed=parameters["seed"],
                step=table.step[self._slots],
            ),
            width=self.plan.width,
            candidates=self.plan.candidates,
            with_gumbel=self.plan.with_gumbel,
            with_dirichlet=self.plan.with_dirichlet,
        )
        if agree is not None:
            concepts = agree(concepts)
        proposal = concepts.ids[:, 0]
        think_end = parameters["think_end"]
        allowed = rows.gather(-1, think_end[:, None]).squeeze(-1) > -torch.inf
        state = advance(
            proposal,
            concepts.entropy,
            table.run[self._slots],
            parameters["entropy_threshold"],
            parameters["length_threshold"],
            think_end,
            allowed,
        )
        first = torch.arange(self.plan.width, device=logits.device) == 0
        ended = state.ended[:, None]
        ids = torch.where(ended, torch.where(first, state.token[:, None], 0), concepts.ids)
        weights = torch.where(ended, first.float(), concepts.weights)

        phase = torch.where(state.ended, int(Phase.ANSWERING), int(Phase.THINKING))
        self._write(table.phase, phase, thinking)
        self._write(table.run, state.run, thinking)
        self._write(table.step, table.step[self._slots] + 1, thinking)
        self._write(table.ids[:, : self.plan.width], ids, thinking)
        self._write(table.weights[:, : self.plan.width], weights, thinking)
        self._token = torch.where(thinking, state.token, -1)
        self.output = StepOutput(ids, weights, concepts.entropy, proposal, allowed)

    def final_ids(self, sampled: torch.Tensor) -> torch.Tensor:
        """The sampled ids ``[B]`` with those of thinking rows replaced; ``sampled`` is kept."""
        assert self._token is not None, "think() comes first"
        token = self._token.to(sampled.dtype)
        return self._scatter(sampled, torch.where(token >= 0, token, self._rows(sampled)))

    def _rows(self, batch: torch.Tensor) -> torch.Tensor:
        return batch if self.plan.index is None else batch.index_select(0, self.plan.index)

    def _scatter(self, batch: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return rows if self.plan.index is None else batch.index_copy(0, self.plan.index, rows)

    def _write(self, column: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> None:
        old = column[self._slots]
        column[self._slots] = torch.where(mask.view(-1, *[1] * (old.dim() - 1)), value, old)
