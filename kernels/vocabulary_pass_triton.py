"""The only pass over the logits: what the thinking step needs to know of the whole vocabulary."""

import triton
import triton.language as tl

from soft_sglang.kernels.noise_triton import sampling_gumbel
from soft_sglang.kernels.row_parameters_triton import batch_row, relative, row_sampling


@triton.jit
def vocabulary_pass_kernel(
    logits_ptr, row_stride, column_stride, vocab_size,
    rows_ptr, slots_ptr, seeds_ptr,
    temperatures_ptr, top_ps_ptr, top_ks_ptr, min_ps_ptr,
    state_ptr, integers_ptr, reals_ptr,
    statistics_ptr, maxima_ptr, races_ptr,
    chunks,
    HAS_ROWS: tl.constexpr, SAMPLES: tl.constexpr, UNFILTERED: tl.constexpr,
    BLOCK: tl.constexpr, SEGMENT: tl.constexpr,
):  # fmt: skip
    """One chunk of one row, read once; grid ``(chunks, rows)``.

    Writes:
        ``statistics[row, 3, chunk]``, float32: the largest logit; with x the distance from it over
        the temperature, the sum of ``exp(x)`` without one token that has it; the sum of
        ``exp(x) x``. No finite logit: ``-inf, -1, 0``. NaN if a logit is NaN or infinite.
        ``maxima[row, segment]``, float32: the largest logit of each segment, the last ones padding.
        ``races[row, 2, chunk]``, float32 and the bits of an int32: the largest perturbed ``x`` of
        rows that are sampled from the whole vocabulary, relative to the chunk's largest logit, and
        its token.
    """
    chunk = tl.program_id(0)
    row = tl.program_id(1)
    batch = batch_row(rows_ptr, row, HAS_ROWS)
    slot = tl.load(slots_ptr + batch).to(tl.int64)
    SEGMENTS: tl.constexpr = BLOCK // SEGMENT
    thinking, temperature, top_k, top_p, min_p = row_sampling(
        slot, batch, temperatures_ptr, top_ps_ptr, top_ks_ptr, min_ps_ptr,
        state_ptr, integers_ptr, reals_ptr, SAMPLES,
    )  # fmt: skip

    tokens = chunk * BLOCK + tl.arange(0, BLOCK)
    logits_ptr += batch * row_stride + tokens.to(tl.int64) * column_stride
    if chunk * BLOCK + BLOCK <= vocab_size:
        logits = tl.load(logits_ptr).to(tl.float32)
    else:
        logits = tl.load(logits_ptr, mask=tokens < vocab_size, other=-float("inf"))
        logits = logits.to(tl.float32)

    maxima = tl.max(tl.reshape(logits, (SEGMENTS, SEGMENT)), axis=1)
    maxima_ptr += (row.to(tl.int64) * chunks + chunk) * SEGMENTS
    tl.store(maxima_ptr + tl.arange(0, SEGMENTS), maxima)

    peak = tl.max(maxima, axis=0)
    power, x = relative(logits, tl.where(peak == -float("inf"), 0.0, peak), temperature)
    at_peak = logits == peak
    others = tl.sum(tl.where(at_peak, 0.0, power), axis=0)
    others += (tl.sum(at_peak.to(tl.int32), axis=0) - 1).to(tl.float32)
    others = tl.where(peak == -float("inf"), tl.where(others == others, -1.0, others), others)
    spread = tl.sum(power * x, axis=0)
    statistics_ptr += row.to(tl.int64) * 3 * chunks + chunk
    tl.store(statistics_ptr, peak)
    tl.store(statistics_ptr + chunks, others)
    tl.store(statistics_ptr + 2 * chunks, spread)

    if UNFILTERED:
        if (not thinking) & (top_k >= vocab_size) & (top_p >= 1.0) & (min_p <= 0.0):
            seed = tl.load(seeds_ptr + batch)
            perturbed = x + sampling_gumbel(seed, tl.full((), 0, tl.int64), tokens)
            perturbed = tl.where(power > 0, perturbed, -float("inf"))
            best, index = tl.max(perturbed, axis=0, return_indices=True)
            races_ptr += row.to(tl.int64) * 2 * chunks + chunk
            tl.store(races_ptr, best)
            tl.store(races_ptr + chunks, (chunk * BLOCK + index).to(tl.float32, bitcast=True))
