"""The concept step: logits of thinking rows to concept tokens.

Reference implementation in PyTorch. Steps 2 to 5 of the method (arXiv 2505.15778, section 3.1):
softmax, entropy, top-k, top-p, min-p, noise, the heaviest ``max_topk`` tokens.
"""

from typing import NamedTuple

import torch

from soft_sglang.kernels import noise

_SEGMENT = 64
"""Tokens per segment of the vocabulary in the search for the heaviest ones."""
_ROWS_AT_ONCE = 4

DIRICHLET_CANDIDATES = 256
"""Tokens that Dirichlet noise is drawn for when top-k is off, or ``max_topk`` if that is more."""

NOISE_NONE, NOISE_GUMBEL, NOISE_DIRICHLET = range(3)
"""Values of ``ConceptRows.noise``."""


class ConceptRows(NamedTuple):
    """Parameters of the rows; every field has shape ``[B]``."""

    temperature: torch.Tensor
    """float32, above 0."""
    top_k: torch.Tensor
    """int64; at least the vocabulary size means off."""
    top_p: torch.Tensor
    """float32 in (0, 1]."""
    min_p: torch.Tensor
    """float32 in [0, 1]."""
    max_topk: torch.Tensor
    """int64, tokens in a concept."""
    noise: torch.Tensor
    """int64, one of the NOISE constants."""
    gumbel_temperature: torch.Tensor
    """float32, above 0."""
    dirichlet_alpha: torch.Tensor
    """float32, above 0."""
    seed: torch.Tensor
    """int64."""
    step: torch.Tensor
    """int64, output position of the token to come."""


class Concepts(NamedTuple):
    """Concept tokens of ``B`` rows, heaviest token first."""

    ids: torch.Tensor
    """``[B, K]`` int64; 0 where the weight is 0."""
    weights: torch.Tensor
    """``[B, K]`` float32, each row sums to 1."""
    entropy: torch.Tensor
    """``[B]`` float32, nats, over the full vocabulary before any filter."""


def concept_step(
    logits: torch.Tensor,
    rows: ConceptRows,
    width: int,
    candidates: int,
    with_gumbel: bool = False,
    with_dirichlet: bool = False,
) -> Concepts:
    """Compute concept tokens.

    The filters work on the ``candidates`` largest logits. That is exact while ``candidates`` is
    at least ``max_topk`` and, for rows whose top-k is on, at least ``top_k``: top-p needs no more
    than the cumulative mass before a token, and min-p no more than the largest probability.
    Dirichlet noise is drawn for the candidates that the filters keep.

    Args:
        logits: ``[B, V]`` floating point, any stride, already penalised and masked; not changed.
            ``-inf`` is a forbidden token. A row of nothing but ``-inf``, or with a NaN, gives the
            token 0; one with ``inf`` gives that token.
        rows: parameters.
        width: number K of columns of the result, at least the largest ``max_topk``.
        candidates: number of candidates, at least ``width``; cut to V.
        with_gumbel: some row has Gumbel noise (known to the host from its parameters).
        with_dirichlet: some row has Dirichlet noise.
    """
    candidates_ = top_candidates(logits, rows.temperature, candidates)
    return concepts_of(candidates_, rows, logits.shape[-1], width, with_gumbel, with_dirichlet)


class Candidates(NamedTuple):
    """The heaviest tokens of ``B`` rows, and what is known of all others."""

    p: torch.Tensor
    """``[B, C]`` float32, descending, relative to the heaviest token."""
    ids: torch.Tensor
    """``[B, C]`` int64."""
    mass: torch.Tensor
    """``[B]`` float32, of the whole vocabulary in the unit of ``p``."""
    entropy: torch.Tensor
    """``[B]`` float32, nats, of the whole vocabulary."""


def top_candidates(logits: torch.Tensor, temperature: torch.Tensor, count: int) -> Candidates:
    """The ``count`` heaviest tokens of each row, equal ones by ascending id.

    Args:
        logits: as for :func:`concept_step`.
        temperature: ``[B]`` float32, above 0.
        count: cut to V.
    """
    logits = logits.float()
    values, ids = _top_values(logits, min(count, logits.shape[-1]))
    others, entropy = _normalise(logits, values[:, :1], ids[:, :1], temperature[:, None])
    # relative to the heaviest token until the end: the sum over the vocabulary is not needed
    distance = (values.double() - values[:, :1].double()) / temperature.double()[:, None]
    p = torch.exp(distance).float()
    dead = ~torch.isfinite(values[:, 0] + others)
    rank = torch.arange(values.shape[-1], device=logits.device)
    return Candidates(
        p=torch.where(dead[:, None], (rank == 0).float(), p),
        ids=torch.where(dead[:, None] & (values[:, :1] != torch.inf), 0, ids),
        mass=torch.where(dead, 1.0, 1.0 + others),
        entropy=torch.where(dead, 0.0, entropy),
    )


def concepts_of(
    candidates: Candidates,
    rows: ConceptRows,
    vocab_size: int,
    width: int,
    with_gumbel: bool,
    with_dirichlet: bool,
) -> Concepts:
    """The concept tokens that the method makes of the candidates; see :func:`concept_step`."""
    p, ids, mass, entropy = candidates
    rank = torch.arange(p.shape[-1], device=p.device)
    p = filtered(p, mass, rows.top_k, rows.top_p, rows.min_p, vocab_size)
    if with_dirichlet:
        # another row may need more candidates than this one's noise is drawn for
        drawn_for = torch.where(rows.top_k < vocab_size, rows.top_k, rows.max_topk)
        drawn_for = drawn_for.clamp_min(DIRICHLET_CANDIDATES)[:, None]
        dirichlet = (rows.noise == NOISE_DIRICHLET)[:, None]
        p = torch.where(dirichlet & (rank >= drawn_for), 0.0, p)
        p, ids = _dirichlet(p, ids, rows)
    p = torch.where(rank < rows.max_topk[:, None], p, 0.0)
    p = p / p.sum(dim=-1, keepdim=True)
    if with_gumbel:
        p, ids = _gumbel(p, ids, rows)

    ids = torch.where(p > 0, ids, 0)
    missing = width - p.shape[-1]
    if missing > 0:
        p = torch.nn.functional.pad(p, (0, missing))
        ids = torch.nn.functional.pad(ids, (0, missing))
    return Concepts(ids=ids[:, :width], weights=p[:, :width], entropy=entropy)


def filtered(
    p: torch.Tensor,
    mass: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    min_p: torch.Tensor,
    vocab_size: int,
    joint: torch.Tensor | None = None,
) -> torch.Tensor:
    """Top-k, top-p and min-p in this order; ``[B, C]``, not renormalised.

    Args:
        p: ``[B, C]``, descending, relative to the heaviest token.
        mass: ``[B]``, of the whole vocabulary, in the unit of ``p``.
        top_k, top_p, min_p: ``[B]``.
        vocab_size: a top-k of at least that many is off.
        joint: ``[B]`` bool, rows whose top-p is a share of the whole mass instead of that within
            top-k; None: none.
    """
    rank = torch.arange(p.shape[-1], device=p.device)
    p = torch.where(rank < top_k[:, None], p, 0.0)
    renormalised = top_k < vocab_size
    if joint is not None:
        renormalised = renormalised & ~joint
    mass = torch.where(renormalised, p.sum(dim=-1), mass)
    before = (torch.cumsum(p, dim=-1) - p) / mass[:, None]
    # the first token always stays, and a top-p of 1 keeps all: rounding can make `before` 1
    top_p = top_p[:, None]
    p = torch.where((before < top_p) | (rank == 0) | (top_p >= 1.0), p, 0.0)
    return torch.where(p >= min_p[:, None] * p[:, :1], p, 0.0)


def _normalise(
    logits: torch.Tensor, peak: torch.Tensor, peak_id: torch.Tensor, temperature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mass of all tokens but the heaviest, relative to it, and the entropy in nats.

    With ``x = (logits - peak) / temperature`` and ``Z = sum exp x`` the entropy is
    ``log Z - sum(exp(x) x) / Z``: no term is negative, so nothing cancels, and leaving out the
    heaviest token's 1 keeps every digit of a small entropy.
    """
    # a few rows at a time on a CPU: intermediates that stay in its cache
    rows = _ROWS_AT_ONCE if logits.device.type == "cpu" else max(len(logits), 1)
    parts = zip(
        *(tensor.split(rows) for tensor in (logits, peak, peak_id, temperature)), strict=True
    )
    sums = [_relative_sums(*part) for part in parts]
    others, spread = (torch.cat(column) for column in zip(*sums, strict=True))
    return others, torch.log1p(others) - spread / (1.0 + others)


def _relative_sums(
    logits: torch.Tensor, peak: torch.Tensor, peak_id: torch.Tensor, temperature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``sum exp x`` and ``sum exp(x) x`` over all tokens but the heaviest."""
    x = (logits - peak).div_(temperature)
    weight = torch.exp(x).scatter_(-1, peak_id, 0.0)
    others = weight.sum(dim=-1)
    spread = weight.mul_(x.clamp_min_(-1e30)).sum(dim=-1)  # 0 * -inf would be NaN
    return others, spread


def _top_values(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``count`` largest values and their ids, equal values by ascending id.

    They lie in the segments of the vocabulary with the largest maxima: each segment that comes
    before the segment of a wanted token holds a better one. Sorting keys that hold value and id
    makes a row independent of its neighbours, where ``topk`` chooses freely among equal values.
    """
    rows, vocab_size = logits.shape
    ids = torch.arange(vocab_size, device=logits.device).expand(rows, -1)
    segments = -(-vocab_size // _SEGMENT)
    if segments > count:
        padding = segments * _SEGMENT - vocab_size
        if padding:
            logits = torch.nn.functional.pad(logits, (0, padding), value=-torch.inf)
        logits = logits.reshape(rows, segments, _SEGMENT)
        maxima = logits.amax(dim=-1)
        best = _keys(maxima, ids[:, :segments]).topk(count, dim=-1, sorted=False).indices
        logits = logits.gather(1, best[:, :, None].expand(-1, -1, _SEGMENT)).flatten(1)
        first = best[:, :, None] * _SEGMENT
        ids = (first + torch.arange(_SEGMENT, device=logits.device)).flatten(1)
    chosen = _keys(logits, ids).topk(count, dim=-1).indices
    return logits.gather(-1, chosen), ids.gather(-1, chosen)


def _keys(values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """int64 that sort by ascending float32 value, then by descending id (below 2**31)."""
    bits = values.masked_fill(values == 0, 0.0).view(torch.int32)  # -0 equals 0
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (bits.long() << 32) + (0x7FFFFFFF - ids)


def _sort_descending(values: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values, order = torch.sort(values, dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)


def _dirichlet(
    p: torch.Tensor, ids: torch.Tensor, rows: ConceptRows
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace ``p`` by a draw from ``Dir(alpha * p)`` where the row asks for it, sorted again."""
    concentration = rows.dirichlet_alpha[:, None] * p / p.sum(dim=-1, keepdim=True)
    kept = concentration > 0
    log_gamma = noise.log_gamma_variate(
        torch.where(kept, concentration, 1.0), rows.seed, rows.step, ids
    )
    drawn = torch.softmax(log_gamma.masked_fill(~kept, -torch.inf), dim=-1)
    wanted = (rows.noise == NOISE_DIRICHLET)[:, None]
    return _sort_descending(torch.where(wanted, drawn, p), ids)


def _gumbel(
    p: torch.Tensor, ids: torch.Tensor, rows: ConceptRows
) -> tuple[torch.Tensor, torch.Tensor]:
    """``softmax((log p + g) / tau)`` where the row asks for it, sorted again."""
    perturbed = torch.log(p) + noise.gumbel(rows.seed, rows.step, ids)
    drawn = torch.softmax(perturbed / rows.gumbel_temperature[:, None], dim=-1)
    wanted = (rows.noise == NOISE_GUMBEL)[:, None]
    return _sort_descending(torch.where(wanted, drawn, p), ids)
