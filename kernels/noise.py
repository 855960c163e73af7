"""Counter-based random numbers for concept noise.

Every number is a pure function of ``(seed, step, token id, stream)``: a run can be replayed,
a resumed request continues its own sequence, and all tensor-parallel ranks draw the same.
"""

import torch

_MASK = 0xFFFFFFFF
GAMMA_ROUNDS = 8
"""Proposals of the gamma sampler. One is rejected with probability below 5 %, all of them 4e-11."""


SAMPLING_STREAM = 3 * GAMMA_ROUNDS + 2
"""The first stream after those of the gamma sampler."""


def _rotate_left(x: torch.Tensor, bits: int) -> torch.Tensor:
    return ((x << bits) | (x >> (32 - bits))) & _MASK


def murmur3_32(words: list[torch.Tensor]) -> torch.Tensor:
    """MurmurHash3 (x86, 32 bit, seed 0) of a key of 32-bit words.

    Args:
        words: int64 tensors that broadcast together, each element in ``[0, 2**32)``.

    Returns:
        int64 tensor of hashes in ``[0, 2**32)``.
    """
    h = torch.zeros((), dtype=torch.int64, device=words[0].device)
    for word in words:
        k = (word * 0xCC9E2D51) & _MASK
        k = (_rotate_left(k, 15) * 0x1B873593) & _MASK
        h = (_rotate_left(h ^ k, 13) * 5 + 0xE6546B64) & _MASK
    h = h ^ (4 * len(words))
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _MASK
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & _MASK
    return h ^ (h >> 16)


def _hash(seed: torch.Tensor, step: torch.Tensor, ids: torch.Tensor, stream: int) -> torch.Tensor:
    return murmur3_32(
        [
            (seed & _MASK)[:, None],
            ((seed >> 32) & _MASK)[:, None],
            step[:, None],
            ids,
            torch.full((), stream, dtype=torch.int64, device=ids.device),
        ]
    )


def uniform(seed: torch.Tensor, step: torch.Tensor, ids: torch.Tensor, stream: int) -> torch.Tensor:
    """Uniform numbers in the open interval (0, 1), exact in float32.

    Args:
        seed: ``[B]`` int64, any value.
        step: ``[B]`` int64, the output position, at least 0.
        ids: ``[B, C]`` int64 token ids.
        stream: number of the independent sequence.

    Returns:
        ``[B, C]`` float32.
    """
    return ((_hash(seed, step, ids, stream) >> 9).to(torch.float32) + 0.5) * 2.0**-23


def gumbel(seed: torch.Tensor, step: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Gumbel(0, 1) noise, ``[B, C]`` float32; arguments as in :func:`uniform`."""
    return -torch.log(-torch.log(uniform(seed, step, ids, stream=0)))


def sampling_gumbel(seed: torch.Tensor, step: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Gumbel(0, 1) noise with a fine upper tail, to draw one token of a large vocabulary.

    Only the largest numbers decide there. They come from the smallest uniform ones, which keep all
    32 bits of the hash. Arguments as in :func:`uniform`; ``[B, C]`` float32.
    """
    hashed = _hash(seed, step, ids, stream=SAMPLING_STREAM)
    return -torch.log(-torch.log1p(-(hashed.double() + 0.5) * 2.0**-32)).float()


def sampling_uniform(seeds: torch.Tensor, count: int) -> torch.Tensor:
    """Uniform numbers in (0, 1), ``[B, count]`` float64 of 32 bits; ``seeds`` is ``[B]`` int64."""
    numbers = torch.arange(count, device=seeds.device)[None]
    hashed = _hash(seeds, torch.zeros_like(seeds), numbers, stream=SAMPLING_STREAM)
    return (hashed.double() + 0.5) * 2.0**-32


def log_gamma_variate(
    concentration: torch.Tensor, seed: torch.Tensor, step: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """Logarithms of Gamma(concentration, 1) variates.

    In log space because a concentration of 1e-4 gives variates far below the smallest float.
    Marsaglia and Tsang (2000) for ``concentration + 1``, boosted by ``U ** (1 / concentration)``.

    Args:
        concentration: ``[B, C]`` float32, above 0.
        seed, step, ids: as in :func:`uniform`.

    Returns:
        ``[B, C]`` float32.
    """
    d = concentration + (1.0 - 1.0 / 3.0)
    c = torch.rsqrt(9.0 * d)
    log_v = torch.zeros_like(d)
    accepted = torch.zeros_like(d, dtype=torch.bool)
    for i in range(GAMMA_ROUNDS):
        radius, angle, u = (uniform(seed, step, ids, stream=3 * i + j + 2) for j in range(3))
        x = torch.sqrt(-2.0 * torch.log(radius)) * torch.cos(2.0 * torch.pi * angle)
        v = (1.0 + c * x) ** 3
        proposal = torch.log(v.clamp_min(1e-30))
        accept = (v > 0) & (torch.log(u) < 0.5 * x * x + d - d * v + d * proposal)
        log_v = torch.where(accept & ~accepted, proposal, log_v)
        accepted |= accept
    boost = torch.log(uniform(seed, step, ids, stream=1)) / concentration
    return torch.log(d) + log_v + boost
