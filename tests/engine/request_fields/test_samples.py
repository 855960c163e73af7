"""Several samples of a request, and seeds: noise is replayed, and differs between samples."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from oracle import Oracle, Request
from soft_requests import COLD, PLAIN, greedy
from traces import close

from soft_sglang.kernels.noise import gumbel

SHORT = replace(PLAIN, steps=12)
"""Noise makes of a small error a larger one with every step."""
SHORT_COLD = replace(COLD, steps=12)
INT64 = 1 << 63
NOISES = ["gumbel", "dirichlet"]


def _sampling(request: Request, noise: str, **more: Any) -> dict[str, Any]:
    sampling = request.sampling_params(**more)
    sampling["soft_thinking"]["noise"] = noise
    return sampling


def _concepts(output: dict[str, Any]) -> list[list[Any]]:
    return output["meta_info"]["soft_thinking"]["concepts"]


@pytest.fixture(scope="module")
def plain_oracle(spelling_model):
    return Oracle(spelling_model, dtype=torch.float64)


def test_sample_i_has_the_seed_plus_i(engine, plain_oracle):
    seed = 11
    outputs = engine.generate(
        input_ids=PLAIN.prompt,
        sampling_params=_sampling(SHORT, "gumbel", sampling_seed=seed, n=3),
    )
    for i, output in enumerate(outputs):

        def noise(step: int, ids: torch.Tensor, seed: int = seed + i) -> torch.Tensor:
            return gumbel(torch.tensor([seed]), torch.tensor([step]), ids[None])[0].double()

        expected = plain_oracle.run(replace(SHORT, gumbel=noise))
        assert expected.margin > 1e-6, "ambiguous data"
        assert output["output_ids"] == expected.ids
        assert close(_concepts(output), expected.concepts)


@pytest.mark.parametrize("noise", NOISES)
def test_every_prompt_of_a_batch_counts_from_its_own_seed(engine, noise):
    prompts, seeds = [PLAIN.prompt, PLAIN.prompt[::-1]], [5, -3]
    together = engine.generate(
        input_ids=prompts,
        sampling_params=[_sampling(SHORT_COLD, noise, sampling_seed=seed, n=2) for seed in seeds],
    )
    # SGLang answers sample by sample of each prompt
    expected = [
        (prompt, seed + i) for prompt, seed in zip(prompts, seeds, strict=True) for i in range(2)
    ]
    traces = []
    for (prompt, seed), output in zip(expected, together, strict=True):
        alone = engine.generate(
            input_ids=prompt, sampling_params=_sampling(SHORT_COLD, noise, sampling_seed=seed)
        )
        assert output["output_ids"] == alone["output_ids"]
        assert close(_concepts(output), _concepts(alone))
        traces.append(_concepts(output))
    assert not any(close(a, b) for i, a in enumerate(traces) for b in traces[:i])


@pytest.mark.parametrize("noise", NOISES)
def test_a_seed_is_replayed_whatever_the_neighbours(engine, noise):
    sampling = _sampling(SHORT, noise, sampling_seed=8)
    alone = engine.generate(input_ids=PLAIN.prompt, sampling_params=sampling)
    others = [greedy(PLAIN), _sampling(SHORT_COLD, noise, sampling_seed=8), greedy(COLD)]
    output, *_ = engine.generate(
        input_ids=[PLAIN.prompt, [7, 8], [9, 10, 11], [12]], sampling_params=[sampling, *others]
    )
    assert output["output_ids"] == alone["output_ids"]
    assert close(_concepts(output), _concepts(alone))
    (other,) = engine.generate(
        input_ids=[PLAIN.prompt], sampling_params=[_sampling(SHORT, noise, sampling_seed=9)]
    )
    assert not close(_concepts(output), _concepts(other))


def test_without_a_seed_every_sample_has_its_own(engine):
    outputs = engine.generate(
        input_ids=PLAIN.prompt, sampling_params=_sampling(SHORT, "gumbel", n=4)
    )
    traces = [_concepts(output) for output in outputs]
    assert not any(close(a, b) for i, a in enumerate(traces) for b in traces[:i])


def test_seeds_wrap_around(engine):
    last, first = engine.generate(
        input_ids=PLAIN.prompt,
        sampling_params=_sampling(SHORT, "gumbel", sampling_seed=INT64 - 1, n=2),
    )
    for seed, output in [(INT64 - 1, last), (-INT64, first)]:
        alone = engine.generate(
            input_ids=PLAIN.prompt, sampling_params=_sampling(SHORT, "gumbel", sampling_seed=seed)
        )
        assert close(_concepts(output), _concepts(alone))


def test_without_noise_samples_share_their_thoughts(engine, oracle):
    """Only their answers are drawn."""
    sampling = COLD.sampling_params(n=4)
    sampling["soft_thinking"]["after_thinking_temperature"] = 1.5
    outputs = engine.generate(input_ids=COLD.prompt, sampling_params=sampling)
    expected = oracle.think(COLD)
    thought = len(expected.concepts)
    for output in outputs:
        assert output["output_ids"][:thought] == expected.ids[:thought]
        assert close(_concepts(output), expected.concepts)
    assert len({tuple(output["output_ids"]) for output in outputs}) > 1
    ids = {output["meta_info"]["id"] for output in outputs}
    assert len(ids) == 4


def test_samples_beside_discrete_samples(engine, oracle):
    soft, discrete = COLD.sampling_params(n=2), greedy(COLD, n=2)
    outputs = engine.generate(input_ids=[COLD.prompt] * 2, sampling_params=[soft, discrete])
    expected = oracle.think(COLD)
    for output in outputs[:2]:
        expected.check(output)
    for output in outputs[2:]:
        assert output["output_ids"] == oracle.greedy(COLD.prompt, COLD.steps)
        assert "soft_thinking" not in output["meta_info"]


def test_a_seed_replays_the_sampled_answer(engine):
    """Alone, again, and between others without a seed; another seed is another answer."""
    ended = {"early_stopping_entropy_threshold": 100, "early_stopping_length_threshold": 2}
    policies = [{}, {"policy": "discrete"}]

    def ask(*seeds: int | None, **more: Any) -> list[list[int]]:
        sampling = {"temperature": 1.0, "max_new_tokens": 14, "ignore_eos": True, **more}
        outputs = engine.generate(
            input_ids=[PLAIN.prompt] * len(policies) * len(seeds),
            sampling_params=[
                {**sampling, "sampling_seed": seed, "soft_thinking": {**ended, **policy}}
                for seed in seeds
                for policy in policies
            ],
        )
        return [output["output_ids"] for output in outputs]

    for filters in ({}, {"top_k": 40, "top_p": 0.9}):
        alone = ask(7, **filters)
        assert ask(7, **filters) == alone
        assert ask(None, 7, None, **filters)[2:4] == alone
        assert ask(8, **filters)[0][2:] != alone[0][2:]
