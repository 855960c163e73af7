"""The random numbers of :mod:`soft_sglang.kernels.noise`, for use inside of Triton kernels.

Functions of the same names give the same numbers, up to the rounding of logarithms.
"""

import triton
import triton.language as tl

from soft_sglang.kernels.noise import GAMMA_ROUNDS, SAMPLING_STREAM

_GAMMA_ROUNDS = tl.constexpr(GAMMA_ROUNDS)
_SAMPLING_STREAM = tl.constexpr(SAMPLING_STREAM)


@triton.jit
def _rotate_left(x, bits: tl.constexpr):
    return (x << bits) | (x >> (32 - bits))


@triton.jit
def _mix(h, word):
    """One round of MurmurHash3 on uint32 values."""
    k = word * tl.full((), 0xCC9E2D51, tl.uint32)
    k = _rotate_left(k, 15) * tl.full((), 0x1B873593, tl.uint32)
    five, offset = tl.full((), 5, tl.uint32), tl.full((), 0xE6546B64, tl.uint32)
    return _rotate_left(h ^ k, 13) * five + offset


@triton.jit
def _hash(seed, step, ids, stream: tl.constexpr):
    h = tl.full((), 0, tl.uint32)
    h = _mix(h, (seed & 0xFFFFFFFF).to(tl.uint32))
    h = _mix(h, ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32))
    h = _mix(h, step.to(tl.uint32))
    h = _mix(h, ids.to(tl.uint32))
    h = _mix(h, tl.full((), stream, tl.uint32))
    h = h ^ tl.full((), 20, tl.uint32)  # bytes of the key
    h = (h ^ (h >> 16)) * tl.full((), 0x85EBCA6B, tl.uint32)
    h = (h ^ (h >> 13)) * tl.full((), 0xC2B2AE35, tl.uint32)
    return h ^ (h >> 16)


@triton.jit
def uniform(seed, step, ids, stream: tl.constexpr):
    """Numbers in (0, 1), float32; ``seed`` int64 and ``step`` scalars, ``ids`` of any shape."""
    return ((_hash(seed, step, ids, stream) >> 9).to(tl.float32) + 0.5) * (2.0**-23)


@triton.jit
def gumbel(seed, step, ids):
    """Gumbel(0, 1) noise, float32, in the shape of ``ids``."""
    return -tl.log(-tl.log(uniform(seed, step, ids, 0)))


@triton.jit
def sampling_gumbel(seed, step, ids):
    """Gumbel(0, 1) noise with a fine upper tail, float32, in the shape of ``ids``."""
    u = (_hash(seed, step, ids, _SAMPLING_STREAM).to(tl.float32) + 0.5) * (2.0**-32)
    u = tl.minimum(u, 1.0 - 2.0**-24)  # rounding may have reached 1
    # log(1 - u) without the cancellation: by its series where u is small
    series = u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * (0.25 + u * 0.2))))
    return -tl.log(tl.where(u < 0.03125, series, -tl.log(1.0 - u)))


@triton.jit
def log_gamma_variate(concentration, seed, step, ids):
    """Logarithms of Gamma(concentration, 1) variates, float32, in the shape of ``ids``."""
    d = concentration + (1.0 - 1.0 / 3.0)
    c = 1.0 / tl.sqrt(9.0 * d)
    log_v = tl.zeros_like(d)
    open_ = tl.full(d.shape, 1, tl.int1)
    for i in tl.static_range(_GAMMA_ROUNDS):
        radius = uniform(seed, step, ids, 3 * i + 2)
        angle = uniform(seed, step, ids, 3 * i + 3)
        u = uniform(seed, step, ids, 3 * i + 4)
        x = tl.sqrt(-2.0 * tl.log(radius)) * tl.cos(6.283185307179586 * angle)
        root = 1.0 + c * x
        v = root * root * root
        proposal = tl.log(tl.maximum(v, 1e-30))
        accept = (v > 0) & (tl.log(u) < 0.5 * x * x + d - d * v + d * proposal)
        log_v = tl.where(accept & open_, proposal, log_v)
        open_ = open_ & ~accept
    return tl.log(d) + log_v + tl.log(uniform(seed, step, ids, 1)) / concentration
