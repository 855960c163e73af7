"""The concept noise: its hash, its distributions, its replay."""

import struct

import numpy as np
import pytest
import tolerances
import torch
from one_thread import one_thread  # noqa: F401 - the import switches it on
from scipy import special, stats

from soft_sglang.kernels import noise
from soft_sglang.kernels.concept_step import (
    NOISE_DIRICHLET,
    NOISE_GUMBEL,
    ConceptRows,
    Concepts,
    concept_step,
)

INT64 = torch.iinfo(torch.int64)


def tensor(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


# The hash.


def murmur3_bytes(key: bytes, seed: int = 0) -> int:
    """MurmurHash3_x86_32 of a key of whole words, on Python's integers."""
    h = seed
    for (k,) in struct.iter_unpack("<I", key):
        k = k * 0xCC9E2D51 % 2**32
        k = (k << 15 | k >> 17) % 2**32 * 0x1B873593 % 2**32
        h ^= k
        h = ((h << 13 | h >> 19) % 2**32 * 5 + 0xE6546B64) % 2**32
    h ^= len(key)
    h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
    h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
    return h ^ h >> 16


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"\xff\xff\xff\xff", 0x76293B50),
        (b"\x21\x43\x65\x87", 0xF55B516B),
        (b"\x00\x00\x00\x00", 0x2362F9DE),
        (b"test", 0xBA6BD213),
    ],
)
def test_murmur3_published_vectors(key: bytes, expected: int) -> None:
    words = [tensor(word) for (word,) in struct.iter_unpack("<I", key)]
    assert noise.murmur3_32(words).tolist() == [expected]
    assert murmur3_bytes(key) == expected


@pytest.mark.parametrize(
    ("key", "seed", "expected"),
    [
        (b"\x21\x43\x65\x87", 0x5082EDEE, 0x2362F9DE),
        (b"aaaa", 0x9747B28C, 0x5A97808A),
        (b"abcd", 0x9747B28C, 0xF0478627),
        (b"", 1, 0x514E28B7),
    ],
)
def test_scalar_murmur3_published_vectors(key: bytes, seed: int, expected: int) -> None:
    assert murmur3_bytes(key, seed) == expected


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_murmur3_is_the_scalar_one(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    words = torch.randint(0, 2**32, (length, 200), generator=generator)
    words[:, 0], words[:, 1], words[0, 2] = 0, 2**32 - 1, 2**31
    keys = [struct.pack(f"<{length}I", *column) for column in words.T.tolist()]
    assert noise.murmur3_32(list(words)).tolist() == [murmur3_bytes(key) for key in keys]


def test_murmur3_broadcasts() -> None:
    hashes = noise.murmur3_32([tensor(7, 8)[:, None], tensor(1, 2, 3)[None], torch.tensor(5)])
    expected = [[murmur3_bytes(struct.pack("<3I", a, b, 5)) for b in (1, 2, 3)] for a in (7, 8)]
    assert hashes.tolist() == expected


# Uniform numbers.


def uniform(seed: int, step: int, token: int, stream: int) -> float:
    return noise.uniform(tensor(seed), tensor(step), tensor(token)[None], stream).item()


def test_uniform_is_the_hash_of_seed_step_token_and_stream() -> None:
    seed, step, token, stream = 0x123456789ABCDEF, 4321, 151935, 17
    h = murmur3_bytes(struct.pack("<QIII", seed, step, token, stream))
    assert uniform(seed, step, token, stream) == ((h >> 9) + 0.5) / 2**23


@pytest.mark.parametrize("h", [0, 1, 511, 512, 2**31, 2**32 - 512, 2**32 - 1])
def test_uniform_is_open_and_exact(h: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "murmur3_32", lambda words: tensor(h)[None])
    u = uniform(0, 0, 0, 0)
    assert 0 < u < 1
    assert u == ((h >> 9) + 0.5) / 2**23  # in float64: float32 lost nothing
    for finite in (noise.gumbel(tensor(0), tensor(0), tensor(0)[None]), torch.tensor(u).log()):
        assert torch.isfinite(finite).all()


@pytest.mark.parametrize("seed", [0, 1, -1, 2**32, 2**32 - 1, INT64.max, INT64.min])
def test_every_seed_is_allowed_and_its_own(seed: int) -> None:
    ids = torch.arange(64)[None]
    numbers = noise.uniform(tensor(seed), tensor(5), ids, stream=0)
    assert ((numbers > 0) & (numbers < 1)).all()
    for other in {0, 1, -1, 2**32, 2**32 - 1, INT64.max, INT64.min} - {seed}:
        assert (numbers != noise.uniform(tensor(other), tensor(5), ids, stream=0)).all()


def test_replay() -> None:
    seeds, steps, ids = tensor(3, -9, 2**40), tensor(0, 7, 9), tensor(5, 6, 151936).repeat(3, 1)
    concentration = torch.full((3, 3), 0.3)
    for draw in (
        lambda *a: noise.uniform(*a, stream=4),
        noise.gumbel,
        lambda *a: noise.log_gamma_variate(concentration[: len(a[0]), : a[2].shape[1]], *a),
    ):
        numbers = draw(seeds, steps, ids)
        assert torch.equal(draw(seeds, steps, ids), numbers)
        for row in range(3):  # whatever else is in the batch, and wherever
            for column in range(3):
                one = slice(row, row + 1), slice(column, column + 1)
                assert draw(seeds[one[0]], steps[one[0]], ids[one]) == numbers[one]
        assert len(numbers.unique()) == 9


@pytest.mark.parametrize("changed", ["seed", "step", "token", "stream"])
def test_neighbouring_numbers_are_independent(changed: str) -> None:
    """Chi-square of pairs on a 16 by 16 grid, where one input of the pair differs by 1."""
    seed, step, ids = torch.arange(400), torch.arange(400) // 20, torch.arange(250).repeat(400, 1)
    a = noise.uniform(seed, step, ids, stream=1)
    b = {
        "seed": lambda: noise.uniform(seed + 1, step, ids, stream=1),
        "step": lambda: noise.uniform(seed, step + 1, ids, stream=1),
        "token": lambda: noise.uniform(seed, step, ids + 1, stream=1),
        "stream": lambda: noise.uniform(seed, step, ids, stream=2),
    }[changed]()
    assert (a != b).all()
    cells = (a * 16).long() * 16 + (b * 16).long()
    counts = torch.bincount(cells.flatten(), minlength=256)
    assert stats.chisquare(counts).pvalue > tolerances.P_VALUE


@pytest.mark.parametrize("stream", [0, 1, 25])
def test_uniform_distribution(stream: int) -> None:
    numbers = noise.uniform(tensor(1, 2), tensor(0, 9), torch.arange(50_000).repeat(2, 1), stream)
    for row in numbers:
        assert stats.kstest(row, "uniform").pvalue > tolerances.P_VALUE


def test_gumbel_is_the_double_logarithm() -> None:
    arguments = tensor(1, 2), tensor(0, 9), torch.arange(500).repeat(2, 1)
    u = noise.uniform(*arguments, stream=0).double()
    np.testing.assert_allclose(
        noise.gumbel(*arguments), -torch.log(-torch.log(u)), **tolerances.NOISE
    )


def test_gumbel_distribution() -> None:
    ids = torch.arange(50_000).repeat(2, 1)
    for row in noise.gumbel(tensor(1, 2), tensor(0, 9), ids):
        assert stats.kstest(row, "gumbel_r").pvalue > tolerances.P_VALUE


def test_sampling_gumbel_is_the_double_logarithm_of_all_32_bits() -> None:
    seed, step, token = 0x123456789ABCDEF, 4321, 151935
    h = murmur3_bytes(struct.pack("<QIII", seed, step, token, noise.SAMPLING_STREAM))
    u = (h + 0.5) / 2**32
    drawn = noise.sampling_gumbel(tensor(seed), tensor(step), tensor(token)[None]).item()
    assert drawn == pytest.approx(-np.log(-np.log1p(-u)), rel=tolerances.NOISE["rtol"])


@pytest.mark.parametrize(("h", "expected"), [(0, 33 * np.log(2)), (2**32 - 1, -3.1297)])
def test_sampling_gumbel_tails(h: int, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upper tail reaches as far as 32 bits can; both are finite."""
    monkeypatch.setattr(noise, "murmur3_32", lambda words: tensor(h)[None])
    drawn = noise.sampling_gumbel(tensor(0), tensor(0), tensor(0)[None])
    assert drawn.item() == pytest.approx(expected, rel=1e-4)


def test_sampling_gumbel_distribution() -> None:
    ids = torch.arange(50_000).repeat(2, 1)
    for row in noise.sampling_gumbel(tensor(1, 2), tensor(0, 9), ids):
        assert stats.kstest(row, "gumbel_r").pvalue > tolerances.P_VALUE


def test_the_largest_perturbed_logarithm_is_a_sample() -> None:
    seeds = torch.arange(20_000) * 7919
    ids = torch.arange(len(P)).repeat(len(seeds), 1)
    scores = torch.tensor(P).log() + noise.sampling_gumbel(seeds, 0 * seeds, ids)
    counts = torch.bincount(scores.argmax(-1), minlength=len(P))
    assert stats.chisquare(counts, len(seeds) * np.array(P)).pvalue > tolerances.P_VALUE


def log_gamma_cdf(x: np.ndarray, concentration: float) -> np.ndarray:
    """P(log G <= x), also where exp(x) underflows."""
    tail = np.exp(concentration * np.minimum(x, -40) - special.gammaln(concentration + 1))
    return np.where(x < -40, tail, special.gammainc(concentration, np.exp(x)))


@pytest.mark.parametrize("concentration", [1e-30, 1e-9, 1e-4, 0.01, 0.3, 1.0, 2.5, 50.0, 1e3, 1e5])
def test_gamma_distribution(concentration: float) -> None:
    ids = torch.arange(20_000)[None]
    variates = noise.log_gamma_variate(
        torch.full(ids.shape, concentration), tensor(11), tensor(2), ids
    )
    assert torch.isfinite(variates).all()
    exact = float(np.float32(concentration))
    result = stats.kstest(variates[0].double(), lambda x: log_gamma_cdf(x, exact))
    assert result.pvalue > tolerances.P_VALUE


def test_gamma_distribution_finely() -> None:
    """Enough variates to see a few proposals in a hundred accepted wrongly."""
    ids = torch.arange(150_000)[None]
    variates = noise.log_gamma_variate(torch.ones(ids.shape), tensor(11), tensor(2), ids)
    counts, _ = np.histogram(log_gamma_cdf(variates.double().numpy(), 1.0), np.linspace(0, 1, 51))
    assert stats.chisquare(counts).pvalue > tolerances.P_VALUE


# The noise of a concept.


def concepts(
    p: list[float], draws: int, kind: int, tau: float = 1.0, alpha: float = 1.0, top_k: int = 99
) -> Concepts:
    """The same logits with ``draws`` different seeds and steps."""
    rows = draws
    constant = torch.ones(rows)
    return concept_step(
        torch.log(torch.tensor(p)).expand(rows, -1),
        ConceptRows(
            temperature=constant,
            top_k=torch.full((rows,), top_k),
            top_p=constant,
            min_p=0 * constant,
            max_topk=torch.full((rows,), len(p)),
            noise=torch.full((rows,), kind),
            gumbel_temperature=tau * constant,
            dirichlet_alpha=alpha * constant,
            seed=torch.arange(rows) // 4,
            step=torch.arange(rows) % 4,
        ),
        width=len(p),
        candidates=len(p),
        with_gumbel=kind == NOISE_GUMBEL,
        with_dirichlet=kind == NOISE_DIRICHLET,
    )


def by_token(drawn: Concepts, vocab: int) -> np.ndarray:
    """``[draws, vocab]`` weights."""
    weights = torch.zeros(len(drawn.ids), vocab)
    return weights.scatter_add_(1, drawn.ids, drawn.weights).double().numpy()


P = [0.4, 0.02, 0.25, 0.1, 0.15, 0.05, 0.03]


@pytest.mark.parametrize("tau", [1e-3, 0.5, 1.0, 10.0])
def test_the_heaviest_token_under_gumbel_noise_is_a_sample(tau: float) -> None:
    """The Gumbel-max trick: its frequencies are the probabilities, at every temperature."""
    first = concepts(P, 10_000, NOISE_GUMBEL, tau=tau).ids[:, 0]
    counts = torch.bincount(first, minlength=len(P))
    assert stats.chisquare(counts, 10_000 * np.array(P)).pvalue > tolerances.P_VALUE


def test_gumbel_temperature_sharpens() -> None:
    heaviest = [
        concepts(P, 2000, NOISE_GUMBEL, tau=tau).weights[:, 0].mean().item()
        for tau in (1e-6, 0.1, 0.5, 1.0, 10.0, 1e6)
    ]
    assert heaviest == sorted(heaviest, reverse=True)
    assert heaviest[0] == 1
    assert heaviest[-1] == pytest.approx(1 / len(P), abs=1e-4)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 50.0, 1e4])
def test_dirichlet_moments(alpha: float) -> None:
    draws = 10_000
    weights = by_token(concepts(P, draws, NOISE_DIRICHLET, alpha=alpha), len(P))
    p = np.array(P)
    squares = (weights - p) ** 2
    for sample, expected in ((weights, p), (squares, p * (1 - p) / (alpha + 1))):
        error = sample.mean(0) - expected
        standard_error = sample.std(0) / np.sqrt(draws)
        assert (np.abs(error) < tolerances.STANDARD_ERRORS * standard_error).all()


@pytest.mark.parametrize("alpha", [0.1, 1.0, 50.0])
def test_dirichlet_marginals_are_beta(alpha: float) -> None:
    """Chi-square on bins away from 0 and 1, where float32 has no room for the mass."""
    draws = 10_000
    weights = by_token(concepts(P, draws, NOISE_DIRICHLET, alpha=alpha), len(P))
    for i, p in enumerate(P):
        beta = stats.beta(alpha * p, alpha * (1 - p))
        edges = np.clip(beta.ppf(np.linspace(0.02, 0.98, 13)), 1e-6, 1 - 1e-6)
        edges = np.concatenate([[-0.1], np.unique(edges), [1.1]])
        expected = draws * np.diff(beta.cdf(edges))
        counts, _ = np.histogram(weights[:, i], edges)
        large = expected >= 5
        counts = np.append(counts[large], counts[~large].sum())
        expected = np.append(expected[large], expected[~large].sum())
        nonzero = expected > 0
        assert counts[~nonzero].sum() == 0
        pvalue = stats.chisquare(counts[nonzero], expected[nonzero]).pvalue
        assert pvalue > tolerances.P_VALUE, i


@pytest.mark.parametrize("alpha", [1e-6, 1e-3])
def test_a_tiny_concentration_picks_one_token(alpha: float) -> None:
    """The limit of Dir(alpha p) for alpha to 0 is all weight on one token, drawn from p."""
    drawn = concepts(P, 10_000, NOISE_DIRICHLET, alpha=alpha)
    assert torch.isfinite(drawn.weights).all()
    assert drawn.weights[:, 0].mean() > 1 - 10 * alpha
    counts = torch.bincount(drawn.ids[:, 0], minlength=len(P))
    assert stats.chisquare(counts, 10_000 * np.array(P)).pvalue > tolerances.P_VALUE


def test_a_large_alpha_changes_nothing() -> None:
    weights = by_token(concepts(P, 1000, NOISE_DIRICHLET, alpha=1e6), len(P))
    np.testing.assert_allclose(weights, np.broadcast_to(P, weights.shape), atol=5e-3)


@pytest.mark.parametrize("kind", [NOISE_GUMBEL, NOISE_DIRICHLET])
@pytest.mark.parametrize("alpha", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("tau", [1e-6, 1.0, 1e6])
def test_the_support_is_never_violated(kind: int, alpha: float, tau: float) -> None:
    """Neither a filtered token nor a forbidden one gets weight, and every weight is a number."""
    p = [0.3, 0.0, 1e-30, 0.0, 0.5, 0.2 - 1e-7, 1e-7, 0.0]
    for top_k, support in ((3, {0, 4, 5}), (99, {0, 2, 4, 5, 6})):
        drawn = concepts(p, 1000, kind, tau=tau, alpha=alpha, top_k=top_k)
        assert torch.isfinite(drawn.weights).all()
        torch.testing.assert_close(drawn.weights.sum(-1), torch.ones(1000), **tolerances.ROW_SUM)
        assert (drawn.weights[:, 1:] <= drawn.weights[:, :-1]).all()
        assert set(drawn.ids[drawn.weights > 0].tolist()) <= support


@pytest.mark.parametrize("kind", [NOISE_GUMBEL, NOISE_DIRICHLET])
def test_one_token_left_by_the_filters_stays_certain(kind: int) -> None:
    drawn = concepts(P, 500, kind, tau=0.1, alpha=1e-6, top_k=1)
    assert (drawn.ids[:, 0] == 0).all()
    assert (drawn.weights[:, 0] == 1).all()


@pytest.mark.parametrize("kind", [NOISE_GUMBEL, NOISE_DIRICHLET])
def test_the_entropy_is_that_before_the_noise(kind: int) -> None:
    drawn = concepts(P, 50, kind, top_k=2)
    expected = -sum(x * np.log(x) for x in P)
    np.testing.assert_allclose(drawn.entropy, expected, rtol=tolerances.ENTROPY["rel"])
