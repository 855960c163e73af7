"""The thinking step in two Triton kernels: one pass over the logits, one program per row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from soft_sglang.kernels import noise_triton as noise
from soft_sglang.kernels.concept_step import NOISE_DIRICHLET, NOISE_GUMBEL
from soft_sglang.kernels.row_parameters_triton import batch_row, relative, row_sampling
from soft_sglang.kernels.selection_triton import compacted, largest, ordered, unordered
from soft_sglang.kernels.table_rows import (
    ANSWERING,
    FORCED_LIMIT,
    INTEGERS,
    MARKER_LIMIT,
    REALS,
    STATE,
    TableRows,
)
from soft_sglang.kernels.vocabulary_pass_triton import vocabulary_pass_kernel

if TYPE_CHECKING:
    from soft_sglang.kernels.sampling import Sampling
    from soft_sglang.kernels.thinking_step import StepPlan

CANDIDATES = (32, 64, 256)
"""Numbers of candidates that are selected: few, so that all variants are compiled at the start."""
CANDIDATE_LIMIT = CANDIDATES[-1]
_LARGEST_VOCAB = 1 << 24
"""Token ids and ranks share 32 bits of a sorting key."""
_BLOCK = 4096
"""Logits per program of the pass: 16 KB, all of them in flight at once."""

_LOWEST = tl.constexpr(-(2**31))
_NOISE_GUMBEL = tl.constexpr(NOISE_GUMBEL)
_NOISE_DIRICHLET = tl.constexpr(NOISE_DIRICHLET)
_ANSWERING = tl.constexpr(ANSWERING)
_STATE = tl.constexpr(len(STATE))
_PHASE = tl.constexpr(STATE.index("phase"))
_RUN = tl.constexpr(STATE.index("run"))
_STEP = tl.constexpr(STATE.index("step"))
_THOUGHT = tl.constexpr(STATE.index("thought"))
_FORCED = tl.constexpr(STATE.index("forced"))
_MATCHED = tl.constexpr(STATE.index("matched"))
_INTEGERS = tl.constexpr(len(INTEGERS))
_REALS = tl.constexpr(len(REALS))
_MAX_TOPK = tl.constexpr(INTEGERS.index("max_topk"))
_NOISE = tl.constexpr(INTEGERS.index("noise"))
_SEED = tl.constexpr(INTEGERS.index("seed"))
_LENGTH_THRESHOLD = tl.constexpr(INTEGERS.index("length_threshold"))
_MAX_THINKING_STEPS = tl.constexpr(INTEGERS.index("max_thinking_steps"))
_END_LENGTH = tl.constexpr(INTEGERS.index("end_length"))
_FORCED_LENGTH = tl.constexpr(INTEGERS.index("forced_length"))
_MARKER_LIMIT = tl.constexpr(MARKER_LIMIT)
_FORCED_LIMIT = tl.constexpr(FORCED_LIMIT)
_GUMBEL_TEMPERATURE = tl.constexpr(REALS.index("gumbel_temperature"))
_DIRICHLET_ALPHA = tl.constexpr(REALS.index("dirichlet_alpha"))
_ENTROPY_THRESHOLD = tl.constexpr(REALS.index("entropy_threshold"))


def segment_size(candidates: int) -> int:
    """Tokens per segment: with ``C`` candidates, ``V / size + C * size`` logits are searched."""
    return 64 if candidates <= 32 else 32


def thinking_step(
    logits: torch.Tensor,
    sampling: Sampling,
    table: TableRows,
    slots: torch.Tensor,
    rows: torch.Tensor | None,
    plan: StepPlan,
    seeds: torch.Tensor | None,
) -> tuple[torch.Tensor, ...]:
    """The fields of a :class:`soft_sglang.kernels.thinking_step.StepResult`.

    Arguments as there; ``seeds``: ``[B]`` int64, random numbers for the rows that are sampled.
    """
    vocab_size, device = logits.shape[1], logits.device
    if max(plan.candidates, plan.width) > CANDIDATE_LIMIT:
        raise ValueError(f"candidates: {plan.candidates} is above {CANDIDATE_LIMIT}")
    if vocab_size >= _LARGEST_VOCAB:
        raise ValueError(f"vocabulary: {vocab_size} is not below {_LARGEST_VOCAB}")
    count = logits.shape[0] if rows is None else rows.shape[0]
    candidates = next(c for c in CANDIDATES if c >= max(plan.candidates, plan.width))
    segment = segment_size(candidates)
    chunks = triton.cdiv(vocab_size, _BLOCK)
    segments = chunks * _BLOCK // segment
    with_unfiltered = plan.samples and plan.with_unfiltered

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    statistics = empty(count, 3, chunks)
    maxima = empty(count, segments)
    scratch = empty(count, 2, candidates, dtype=torch.int64)
    races = empty(count, 2, chunks) if with_unfiltered else statistics
    token = empty(count, dtype=torch.int64)
    ids = empty(count, plan.width, dtype=torch.int64)
    weights, entropy = empty(count, plan.width), empty(count)
    proposal, allowed = torch.empty_like(token), empty(count, dtype=torch.bool)
    result = token, ids, weights, entropy, proposal, allowed
    if count == 0:
        return result
    row_arguments = (
        rows, slots, seeds,
        sampling.temperatures, sampling.top_ps, sampling.top_ks, sampling.min_ps,
        table.state, table.integers, table.reals,
    )  # fmt: skip
    shared = {"HAS_ROWS": rows is not None, "SAMPLES": plan.samples, "SEGMENT": segment}
    vocabulary_pass_kernel[(chunks, count)](
        logits, logits.stride(0), logits.stride(1), vocab_size,
        *row_arguments,
        statistics, maxima, races, chunks,
        UNFILTERED=with_unfiltered, BLOCK=_BLOCK, **shared, num_warps=4,
    )  # fmt: skip
    thinking_step_kernel[(count,)](
        logits, logits.stride(0), logits.stride(1), vocab_size,
        *row_arguments,
        table.end_ids, table.forced_ids, table.ids, table.weights, table.ids.stride(0),
        statistics, maxima, races, chunks, scratch,
        *result, plan.width, int(plan.joint_filters),
        UNFILTERED=with_unfiltered,
        NOISE=plan.with_gumbel or plan.with_dirichlet,
        CANDIDATES=candidates,
        SEGMENTS=max(triton.next_power_of_2(segments), candidates),
        SEGMENTS_PER_CHUNK=_BLOCK // segment,
        CHUNKS=triton.next_power_of_2(chunks),
        **shared,
        num_warps=8,
    )  # fmt: skip
    return result


@triton.jit
def _sorted(p, ids, rank):
    """Sort by descending ``p`` (not negative), equal ones as before; ids below 2**24."""
    keys = (
        (p.to(tl.int32, bitcast=True).to(tl.int64) << 32) + ((255 - rank).to(tl.int64) << 24) + ids
    )
    keys = tl.sort(keys, descending=True)
    return (keys >> 32).to(tl.int32).to(tl.float32, bitcast=True), keys & 0xFFFFFF


@triton.jit
def _top_candidates(
    logits_ptr, column_stride, vocab_size, maxima_ptr, row, segments, scratch_ptr,
    CANDIDATES: tl.constexpr, SEGMENTS: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """Values and ids of the largest logits, equal ones by ascending id; ``-inf`` and 0 if missing.

    They lie in the segments with the largest maxima, lower segments first among equal ones: each
    segment that comes before the segment of a candidate holds a better token.
    """
    segment = tl.arange(0, SEGMENTS)
    exists = segment < segments
    maxima = tl.load(maxima_ptr + row * segments + segment, mask=exists, other=0.0)
    keys = tl.where(exists, ordered(maxima), _LOWEST)
    smallest = tl.min(tl.where(exists, keys, 0x7FFFFFFF), axis=0)
    bound = tl.where(segments >= CANDIDATES, smallest, _LOWEST)
    selected, bound = largest(keys, bound, CANDIDATES)
    segment = compacted(segment.to(tl.int64), selected, scratch_ptr, CANDIDATES)

    tokens = segment[:, None] * SEGMENT + tl.arange(0, SEGMENT)[None, :]
    exists = tokens < vocab_size
    # -inf as in the maxima: a segment has a token that is not below its maximum
    logits = tl.load(logits_ptr + tokens * column_stride, mask=exists, other=-float("inf"))
    keys = ordered(logits.to(tl.float32))
    keys = tl.reshape(keys, (CANDIDATES * SEGMENT,))
    tokens = tl.reshape(tokens, (CANDIDATES * SEGMENT,))
    selected, _ = largest(keys, bound, CANDIDATES)
    # one key sorts by descending value, then by ascending id
    keys = (keys.to(tl.int64) << 32) + (0x7FFFFFFF - tokens)
    keys = compacted(keys, selected, scratch_ptr + CANDIDATES, CANDIDATES)
    keys = tl.sort(keys, descending=True)
    ids = 0x7FFFFFFF - (keys & 0xFFFFFFFF)
    exists = ids < vocab_size
    values = tl.where(exists, unordered((keys >> 32).to(tl.int32)), -float("inf"))
    return values, tl.where(exists, ids, 0)


@triton.jit
def _merged(statistics_ptr, chunks, temperature, CHUNKS: tl.constexpr):
    """Largest logit, mass without one token that has it, entropy, and whether all is finite."""
    chunk = tl.arange(0, CHUNKS)
    exists = chunk < chunks
    peaks = tl.load(statistics_ptr + chunk, mask=exists, other=-float("inf"))
    others = tl.load(statistics_ptr + chunks + chunk, mask=exists, other=-1.0)
    spreads = tl.load(statistics_ptr + 2 * chunks + chunk, mask=exists, other=0.0)
    peak, winner = tl.max(peaks, axis=0, return_indices=True)
    scale, x = relative(peaks, tl.where(peak == -float("inf"), 0.0, peak), temperature)
    # the winning chunk's own peak is the one token left out
    inside = tl.where(chunk == winner, others, scale * (1.0 + others))
    mass = tl.sum(inside, axis=0)
    full = tl.where(chunk == winner, 0.0, scale * (1.0 + others) * x)
    spread = tl.sum(scale * spreads + full, axis=0)
    total = 1.0 + mass
    alive = (peak > -float("inf")) & (tl.abs(peak + mass) < float("inf"))
    # log(1 + mass) by Kahan's formula: exact for a mass far below the rounding of 1 + mass
    change = total - 1.0
    log = tl.where(change == 0.0, mass, tl.log(total) * (mass / tl.where(change == 0, 1.0, change)))
    return peak, mass, log - spread / total, alive


@triton.jit(do_not_specialize=["width", "joint_filters"])
def thinking_step_kernel(
    logits_ptr, row_stride, column_stride, vocab_size,
    rows_ptr, slots_ptr, seeds_ptr,
    temperatures_ptr, top_ps_ptr, top_ks_ptr, min_ps_ptr,
    state_ptr, integers_ptr, reals_ptr,
    end_ids_ptr, forced_ids_ptr, ids_ptr, weights_ptr, concept_stride,
    statistics_ptr, maxima_ptr, races_ptr, chunks, scratch_ptr,
    out_token_ptr, out_ids_ptr, out_weights_ptr, out_entropy_ptr, out_proposal_ptr, out_allowed_ptr,
    width, joint_filters,
    HAS_ROWS: tl.constexpr, SAMPLES: tl.constexpr, UNFILTERED: tl.constexpr, NOISE: tl.constexpr,
    CANDIDATES: tl.constexpr, SEGMENTS: tl.constexpr, SEGMENT: tl.constexpr,
    SEGMENTS_PER_CHUNK: tl.constexpr, CHUNKS: tl.constexpr,
):  # fmt: skip
    """Everything else of one row's step; grid ``(rows,)``."""
    row = tl.program_id(0)
    batch = batch_row(rows_ptr, row, HAS_ROWS)
    slot = tl.load(slots_ptr + batch).to(tl.int64)
    thinking, temperature, top_k, top_p, min_p = row_sampling(
        slot, batch, temperatures_ptr, top_ps_ptr, top_ks_ptr, min_ps_ptr,
        state_ptr, integers_ptr, reals_ptr, SAMPLES,
    )  # fmt: skip
    state_ptr += slot * _STATE
    integers_ptr += slot * _INTEGERS
    reals_ptr += slot * _REALS
    logits_ptr += batch * row_stride
    rank = tl.arange(0, CANDIDATES)

    segments = chunks * SEGMENTS_PER_CHUNK
    peak, others, entropy, alive = _merged(
        statistics_ptr + row.to(tl.int64) * 3 * chunks, chunks, temperature, CHUNKS
    )
    values, ids = _top_candidates(
        logits_ptr, column_stride, vocab_size, maxima_ptr, row.to(tl.int64), segments,
        scratch_ptr + row * 2 * CANDIDATES, CANDIDATES, SEGMENTS, SEGMENT,
    )  # fmt: skip
    # relative to the heaviest token; a row without a finite peak is one token alone
    p, _ = relative(values, tl.where(alive, peak, 0.0), temperature)
    p = tl.where(alive, p, tl.where(rank == 0, 1.0, 0.0))
    certain = tl.sum(tl.where(rank == 0, values, 0.0), axis=0) == float("inf")
    ids = tl.where(alive | certain, ids, 0)
    mass = tl.where(alive, 1.0 + others, 1.0)
    entropy = tl.where(alive, entropy, 0.0)

    # top-k, top-p, min-p
    p = tl.where(rank < top_k, p, 0.0)
    renormalise = (top_k < vocab_size) & (thinking | ((joint_filters == 0) & (min_p > 0.0)))
    mass = tl.where(renormalise, tl.sum(p, axis=0), mass)
    before = (tl.cumsum(p, axis=0) - p) / mass
    bound = tl.where(top_p < 1.0, top_p, float("inf"))  # rounding can make `before` 1
    p = tl.where((before < bound) | (rank == 0), p, 0.0)
    p = tl.where(p >= min_p, p, 0.0)  # the heaviest is 1

    sampled = tl.full((), -1, tl.int64)
    if SAMPLES:
        if not thinking:
            noise_seed = tl.load(seeds_ptr + batch)
            zero = tl.full((), 0, tl.int64)
            scores = tl.log(p) + noise.sampling_gumbel(noise_seed, zero, ids)
            best = tl.argmax(scores, axis=0)
            sampled = tl.sum(tl.where(rank == best, ids, 0), axis=0)
            if UNFILTERED:
                if alive & (top_k >= vocab_size) & (top_p >= 1.0) & (min_p <= 0.0):
                    sampled = _winner(
                        races_ptr + row.to(tl.int64) * 2 * chunks,
                        statistics_ptr + row.to(tl.int64) * 3 * chunks,
                        chunks, peak, temperature, CHUNKS,
                    )  # fmt: skip

    seed = tl.load(integers_ptr + _SEED)
    step = tl.load(state_ptr + _STEP)
    kind = tl.load(integers_ptr + _NOISE)
    if NOISE:
        if kind == _NOISE_DIRICHLET:
            concentration = tl.load(reals_ptr + _DIRICHLET_ALPHA) * p / tl.sum(p, axis=0)
            kept = concentration > 0
            drawn = noise.log_gamma_variate(tl.where(kept, concentration, 1.0), seed, step, ids)
            drawn = tl.where(kept, drawn, -float("inf"))
            drawn = tl.exp(drawn - tl.max(drawn, axis=0))
            p, ids = _sorted(drawn / tl.sum(drawn, axis=0), ids, rank)
    p = tl.where(rank < tl.maximum(tl.load(integers_ptr + _MAX_TOPK), 1), p, 0.0)
    p = p / tl.sum(p, axis=0)
    if NOISE:
        if kind == _NOISE_GUMBEL:
            drawn = (tl.log(p) + noise.gumbel(seed, step, ids)) / tl.load(
                reals_ptr + _GUMBEL_TEMPERATURE
            )
            drawn = tl.exp(drawn - tl.max(drawn, axis=0))
            p, ids = _sorted(drawn / tl.sum(drawn, axis=0), ids, rank)
    ids = tl.where(p > 0, ids, 0)

    # Cold Stop and the end of thinking
    proposal = tl.sum(tl.where(rank == 0, ids, 0), axis=0)
    forced_ids_ptr += slot * _FORCED_LIMIT
    forced_length = tl.load(integers_ptr + _FORCED_LENGTH).to(tl.int32)
    forced = tl.load(state_ptr + _FORCED).to(tl.int32)
    next_forced = tl.load(forced_ids_ptr + forced, mask=forced < forced_length, other=0)
    allowed = True
    for place in range(forced, forced_length):  # one token, mostly
        logit = tl.load(logits_ptr + tl.load(forced_ids_ptr + place) * column_stride)
        allowed = allowed & (logit.to(tl.float32) > -float("inf"))

    run = tl.load(state_ptr + _RUN)
    thought = tl.load(state_ptr + _THOUGHT)
    new_run = tl.where(entropy < tl.load(reals_ptr + _ENTROPY_THRESHOLD), run + 1, 0)
    due = new_run >= tl.load(integers_ptr + _LENGTH_THRESHOLD)
    due = (due | (thought >= tl.load(integers_ptr + _MAX_THINKING_STEPS))) & allowed
    end_length = tl.load(integers_ptr + _END_LENGTH).to(tl.int32)
    end_ids_ptr += slot * _MARKER_LIMIT
    matched = tl.load(state_ptr + _MATCHED).to(tl.int32)
    _, length = _matched(matched, proposal, end_ids_ptr, end_length)
    going_on = (forced > 0) & allowed
    natural = (length == end_length) & (length > 0) & (going_on == 0)
    begins = due & (natural == 0) & (going_on == 0)
    token = tl.where(going_on | (begins & (length == 0)), next_forced, proposal)
    # where the proposal is part of the marker, the rest of it follows
    begun = tl.where(length > 0, forced_length - end_length + length, 1)
    new_forced = tl.where(going_on, forced + 1, tl.where(begins, begun, 0))
    ended = natural | ((new_forced > 0) & (new_forced >= forced_length))
    alone = ended | going_on | begins
    matched, _ = _matched(matched, token, end_ids_ptr, end_length)
    ids = tl.where(alone, tl.where(rank == 0, token, 0), ids)
    p = tl.where(alone, tl.where(rank == 0, 1.0, 0.0), p)

    in_width = rank < width
    tl.store(out_ids_ptr + row * width + rank, ids, mask=in_width)
    tl.store(out_weights_ptr + row * width + rank, p, mask=in_width)
    tl.store(out_entropy_ptr + row, entropy)
    tl.store(out_proposal_ptr + row, proposal)
    tl.store(out_allowed_ptr + row, allowed)
    if thinking:
        tl.store(out_token_ptr + row, token)
        tl.store(ids_ptr + slot * concept_stride + rank, ids, mask=in_width)
        tl.store(weights_ptr + slot * concept_stride + rank, p, mask=in_width)
        tl.store(state_ptr + _PHASE, tl.where(ended, _ANSWERING, tl.load(state_ptr + _PHASE)))
        tl.store(state_ptr + _RUN, tl.where(going_on, run, new_run))
        tl.store(state_ptr + _STEP, step + 1)
        tl.store(state_ptr + _THOUGHT, thought + 1)
        tl.store(state_ptr + _FORCED, tl.where(ended, 0, new_forced))
        tl.store(state_ptr + _MATCHED, tl.where(ended, 0, matched))
    else:
        tl.store(out_token_ptr + row, sampled)


@triton.jit
def _matched(matched, token, marker_ptr, marker_length):
    """The bits of the matches of a marker that a token goes on with; length of the longest one."""
    going_on = (matched << 1) | 1
    matched = tl.full((), 0, tl.int32)
    length = tl.full((), 0, tl.int32)
    for place in range(marker_length):  # one token, mostly
        bit = (going_on >> place) & (tl.load(marker_ptr + place) == token).to(tl.int32)
        matched = matched | (bit << place)
        length = tl.where(bit > 0, place + 1, length)
    return matched, length


@triton.jit
def _winner(races_ptr, statistics_ptr, chunks, peak, temperature, CHUNKS: tl.constexpr):
    """The token that won the race over all chunks."""
    chunk = tl.arange(0, CHUNKS)
    exists = chunk < chunks
    peaks = tl.load(statistics_ptr + chunk, mask=exists, other=-float("inf"))
    best = tl.load(races_ptr + chunk, mask=exists, other=-float("inf"))
    _, x = relative(peaks, peak, temperature)
    winner = tl.argmax(best + x, axis=0)
    return tl.load(races_ptr + chunks + winner).to(tl.int32, bitcast=True).to(tl.int64)
