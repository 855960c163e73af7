"""One step of a batch: from logits to concepts, phases and the next ids."""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F

from soft_sglang.kernels import noise, thinking_step_triton
from soft_sglang.kernels.concept_step import (
    Candidates,
    ConceptRows,
    concepts_of,
    filtered,
    top_candidates,
)
from soft_sglang.kernels.sampling import Sampling
from soft_sglang.kernels.table_rows import (
    ANSWERING,
    INTEGERS,
    STATE,
    THINKING,
    TableRows,
    where_rows,
)
from soft_sglang.kernels.thinking_state import (
    ThoughtRules,
    ThoughtState,
    advance,
    is_allowed,
)

_STEP_SEED = 0x1E3779B97F4A7C15
"""Odd and irregular: makes one seed per position of a request's; they are hashed before use."""
_SEGMENT = 64
"""Tokens per segment when one of the whole vocabulary is drawn."""


@dataclass(frozen=True)
class StepPlan:
    """What the host knows of a batch from its requests' parameters."""

    width: int
    """Largest ``max_topk``, at most the table's width."""
    candidates: int
    """Number of candidates; see :func:`soft_sglang.kernels.concept_step.concept_step`."""
    with_gumbel: bool = False
    """Some row has Gumbel noise."""
    with_dirichlet: bool = False
    samples: bool = False
    """Rows that are not THINKING are sampled here too."""
    with_unfiltered: bool = False
    """Some row may be sampled from the whole vocabulary, without any filter."""
    seeded_answers: bool = False
    """ANSWERING rows that are sampled here draw by their own seed and position."""
    counts_answers: bool = False
    """Some ANSWERING row needs its output position: it draws by it, or may think again."""
    end_width: int = 1
    """Largest number of tokens of a marker that ends thinking."""
    forced_width: int = 1
    """Largest number of tokens that are emitted to end thinking; 1: every marker is one token."""
    joint_filters: bool = True
    """Rows that are not THINKING and have a min-p: top-p is a share of the whole mass, not of that
    within top-k. It always is where there is no min-p."""


class StepResult(NamedTuple):
    """Result for ``S`` rows."""

    token: torch.Tensor
    """``[S]`` int64, the emitted ids; -1 for rows left to another sampler."""
    ids: torch.Tensor
    """``[S, K]`` int64, the concept: what a THINKING row is fed next."""
    weights: torch.Tensor
    """``[S, K]`` float32."""
    entropy: torch.Tensor
    """``[S]`` float32, nats."""
    proposal: torch.Tensor
    """``[S]`` int64, the heaviest token before Cold Stop."""
    end_allowed: torch.Tensor
    """``[S]`` bool, False where the logit of a token that is still to be forced, should thinking be
    made to end, is ``-inf``."""


def thinking_step(
    logits: torch.Tensor,
    sampling: Sampling,
    table: TableRows,
    slots: torch.Tensor,
    rows: torch.Tensor | None,
    plan: StepPlan,
) -> StepResult:
    """Advance the THINKING rows of a batch and, with ``plan.samples``, sample the others.

    THINKING rows: steps 2 to 6 of the method (arXiv 2505.15778, section 3); their table rows are
    written. ANSWERING rows use the answer parameters of their table row, DISCRETE rows those of
    the batch. A sampled row draws from its filtered distribution with random numbers of the
    device's default generator, or by its seed with ``plan.seeded_answers``. Fixed shapes, no host
    synchronisation. Triton kernels on CUDA tensors (up to :data:`CANDIDATE_LIMIT` candidates),
    PyTorch elsewhere.

    Args:
        logits: ``[B, V]`` floating point, any stride, already penalised and masked; not changed.
        sampling: of the batch.
        table: written in place.
        slots: ``[B]`` integer, contiguous, table rows of the batch.
        rows: ``[S]`` int64, the rows to work on, ascending; None: all.
        plan: of the batch.
    """
    seeds = None
    if plan.samples:
        seeds = torch.empty_like(slots, dtype=torch.int64).random_()
    if plan.counts_answers:
        answering, step = table.phase[slots] == ANSWERING, table.step[slots]
        if seeds is not None and plan.seeded_answers:
            own = table.integers[slots, INTEGERS.index("seed")] + step * _STEP_SEED
            seeds = torch.where(answering, own, seeds)
        table.step[slots] = step + answering
    if logits.is_cuda and plan.candidates <= thinking_step_triton.CANDIDATE_LIMIT:
        fields = thinking_step_triton.thinking_step(
            logits, sampling, table, slots, rows, plan, seeds
        )
        return StepResult(*fields)
    return thinking_step_torch(logits, sampling, table, slots, rows, plan, seeds)


def warm_up(table: TableRows, vocab_size: int) -> None:
    """Compile every variant of the kernels now, so that no request waits for a compiler.

    Works on the table's padding row, which stays as it is.
    """
    device = table.phase.device
    slots = torch.zeros(1, dtype=torch.int64, device=device)
    one = torch.ones(1, device=device)
    sampling = Sampling(one[:, None], one, one.int(), one)
    logits = torch.zeros(1, vocab_size, device=device)
    modes = [(False, False, None), (False, False, slots), (True, False, None), (True, True, None)]
    for candidates, noisy, mode in product(thinking_step_triton.CANDIDATES, (False, True), modes):
        samples, unfiltered, rows = mode
        plan = StepPlan(
            width=1,
            candidates=candidates,
            with_gumbel=noisy,
            samples=samples,
            with_unfiltered=unfiltered,
        )
        seeds = slots if samples else None
        thinking_step_triton.thinking_step(logits, sampling, table, slots, rows, plan, seeds)


def thinking_step_torch(
    logits: torch.Tensor,
    sampling: Sampling,
    table: TableRows,
    slots: torch.Tensor,
    rows: torch.Tensor | None,
    plan: StepPlan,
    seeds: torch.Tensor | None,
) -> StepResult:
    """The reference in PyTorch; ``seeds``: ``[B]`` int64 if the plan samples."""
    if rows is not None:
        logits, slots, sampling = logits.index_select(0, rows), slots[rows], sampling.of_rows(rows)
    parameters = table.parameters(slots)
    before = table.state[slots]
    phase, run, step, thought, forced, matched = before.unbind(-1)
    thinking = phase == THINKING
    if plan.samples:
        sampling = sampling.after_thinking(phase == ANSWERING, parameters)
    temperature = sampling.temperatures.view(-1)
    candidates = top_candidates(logits, temperature, plan.candidates)
    concepts = concepts_of(
        candidates,
        ConceptRows(
            temperature=temperature,
            top_k=sampling.top_ks.long(),
            top_p=sampling.top_ps,
            min_p=sampling.min_ps,
            max_topk=parameters["max_topk"].clamp_min(1),
            noise=parameters["noise"],
            gumbel_temperature=parameters["gumbel_temperature"],
            dirichlet_alpha=parameters["dirichlet_alpha"],
            seed=parameters["seed"],
            step=step,
        ),
        logits.shape[-1],
        plan.width,
        plan.with_gumbel,
        plan.with_dirichlet,
    )
    proposal = concepts.ids[:, 0]
    rules = thought_rules(table, slots, parameters, plan)
    allowed = is_allowed(logits, rules.forced_ids, forced)
    thought_state = ThoughtState(run, thought, forced, matched)
    end = advance(proposal, concepts.entropy, thought_state, rules, allowed)
    ids, weights = end.next_input(concepts.ids, concepts.weights)
    columns = new_columns(torch.where(end.ended, ANSWERING, THINKING), step + 1, end.state)

    def write(column: torch.Tensor, value: torch.Tensor) -> None:
        column[slots] = where_rows(thinking, value, column[slots])

    table.state[slots] = where_rows(thinking, columns, before)
    write(table.ids[:, : plan.width], ids)
    write(table.weights[:, : plan.width], weights)

    token = torch.full_like(end.token, -1)
    if plan.samples:
        assert seeds is not None
        seeds = seeds if rows is None else seeds[rows]
        token = _sampled(logits, candidates, sampling, plan, seeds)
    token = torch.where(thinking, end.token, token)
    return StepResult(token, ids, weights, concepts.entropy, proposal, allowed)


def thought_rules(
    table: TableRows, slots: torch.Tensor, parameters: dict[str, torch.Tensor], plan: StepPlan
) -> ThoughtRules:
    """When and how the thoughts of rows end; ``parameters`` as the table names them."""
    end_ids = forced_ids = parameters["first_forced"][:, None]
    if plan.forced_width > 1:
        end_ids = table.end_ids[slots, : plan.end_width]
        forced_ids = table.forced_ids[slots, : plan.forced_width]
    return ThoughtRules(
        parameters["entropy_threshold"],
        parameters["length_threshold"],
        parameters["max_thinking_steps"],
        end_ids,
        parameters["end_length"],
        forced_ids,
        parameters["forced_length"],
    )


def new_columns(phase: torch.Tensor, step: torch.Tensor, thought: ThoughtState) -> torch.Tensor:
    """The table's columns of a state, ``[B, len(STATE)]``."""
    columns = {"phase": phase, "step": step, **thought._asdict()}
    return torch.stack([columns[name] for name in STATE], dim=-1)


def _sampled(
    logits: torch.Tensor,
    candidates: Candidates,
    sampling: Sampling,
    plan: StepPlan,
    seeds: torch.Tensor,
) -> torch.Tensor:
    """``[B]`` ids drawn from the filtered distributions."""
    p, ids, mass, _ = candidates
    temperatures, top_p, top_k, min_p = sampling
    joint = sampling.joint(plan.joint_filters)
    kept = filtered(p, mass, top_k, top_p, min_p, logits.shape[-1], joint)
    uniform = noise.sampling_uniform(seeds, 3)
    token = ids.gather(-1, _drawn(kept.double(), uniform[:, :1])).squeeze(-1)
    if plan.with_unfiltered:
        drawn, alive = _drawn_from_all(logits, temperatures, uniform[:, 1:])
        unfiltered = (top_k >= logits.shape[-1]) & (top_p >= 1.0) & (min_p <= 0.0)
        token = torch.where(unfiltered & alive, drawn, token)
    return token


def _drawn_from_all(
    logits: torch.Tensor, temperatures: torch.Tensor, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``[B]`` ids drawn from ``softmax(logits / temperatures)``, and where there is such a thing.

    A segment of the vocabulary is drawn first, then a token of it: two random numbers per row
    (``uniform``, ``[B, 2]``), where drawing by exponential noise takes one per token.
    """
    scaled = logits.float() / temperatures
    weight = torch.exp(scaled.sub_(scaled.amax(dim=-1, keepdim=True)))
    weight = F.pad(weight, (0, -weight.shape[-1] % _SEGMENT)).unflatten(-1, (-1, _SEGMENT))
    masses = weight.sum(dim=-1, dtype=torch.float64)
    segment = _drawn(masses, uniform[:, :1])
    inside = weight.gather(1, segment[:, :, None].expand(-1, -1, _SEGMENT)).squeeze(1)
    token = segment * _SEGMENT + _drawn(inside.double(), uniform[:, 1:])
    return token.squeeze(-1), torch.isfinite(masses.sum(dim=-1))


def _drawn(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """``[B, 1]`` indices drawn in proportion to ``[B, N]`` float64 weights; never a weight of 0.

    ``uniform``: ``[B, 1]`` float64 in [0, 1).
    """
    below = weights.cumsum(dim=-1)
    at = uniform * below[:, -1:]
    drawn = torch.searchsorted(below, at, right=True)
    return drawn.clamp_max_(weights.shape[-1] - 1)  # a row of NaN
