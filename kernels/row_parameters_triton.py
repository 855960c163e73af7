"""What both kernels of the thinking step read about a row, and how they compute exponentials."""

import triton
import triton.language as tl

from soft_sglang.kernels.table_rows import ANSWERING, INTEGERS, REALS, STATE, THINKING

_THINKING = tl.constexpr(THINKING)
_ANSWERING = tl.constexpr(ANSWERING)
_STATE = tl.constexpr(len(STATE))
_PHASE = tl.constexpr(STATE.index("phase"))
_INTEGERS = tl.constexpr(len(INTEGERS))
_REALS = tl.constexpr(len(REALS))
_ANSWER_TOP_K = tl.constexpr(INTEGERS.index("answer_top_k"))
_ANSWER_TEMPERATURE = tl.constexpr(REALS.index("answer_temperature"))
_ANSWER_TOP_P = tl.constexpr(REALS.index("answer_top_p"))
_ANSWER_MIN_P = tl.constexpr(REALS.index("answer_min_p"))


@triton.jit
def batch_row(rows_ptr, row, HAS_ROWS: tl.constexpr):
    """The batch row of result row ``row``."""
    if HAS_ROWS:
        return tl.load(rows_ptr + row)
    return row.to(tl.int64)


@triton.jit
def row_sampling(
    slot, batch, temperatures_ptr, top_ps_ptr, top_ks_ptr, min_ps_ptr,
    state_ptr, integers_ptr, reals_ptr, SAMPLES: tl.constexpr,
):  # fmt: skip
    """Whether a row is THINKING; its temperature, top-k, top-p and min-p in its phase."""
    phase = tl.load(state_ptr + slot * _STATE + _PHASE)
    temperature = tl.load(temperatures_ptr + batch)
    top_p = tl.load(top_ps_ptr + batch)
    top_k = tl.load(top_ks_ptr + batch).to(tl.int64)
    min_p = tl.load(min_ps_ptr + batch)
    if SAMPLES:
        if phase == _ANSWERING:
            temperature = tl.load(reals_ptr + slot * _REALS + _ANSWER_TEMPERATURE)
            top_p = tl.load(reals_ptr + slot * _REALS + _ANSWER_TOP_P)
            top_k = tl.load(integers_ptr + slot * _INTEGERS + _ANSWER_TOP_K)
            min_p = tl.load(reals_ptr + slot * _REALS + _ANSWER_MIN_P)
    return phase == _THINKING, temperature, top_k, top_p, min_p


@triton.jit
def relative(logits, peak, temperature):
    """``exp(x)`` and ``x`` with ``x = (logits - peak) / temperature``, float32.

    The exponent of 2 is kept to about 36 bits: with one rounding of it the smallest probabilities
    would be off by its magnitude times 6e-8.
    """
    exact = 1.4426950408889634 / temperature.to(tl.float64)
    scale = exact.to(tl.float32)
    rest = (exact - scale.to(tl.float64)).to(tl.float32)
    distance = logits - peak
    # no -inf, whose product with 0 is NaN; a NaN stays
    distance = tl.maximum(distance, -1e30, propagate_nan=tl.PropagateNan.ALL)
    exponent = distance * scale
    correction = tl.fma(distance, scale, -exponent) + distance * rest
    power = tl.exp2(exponent)
    return tl.fma(power, correction * 0.6931471805599453, power), exponent * 0.6931471805599453
