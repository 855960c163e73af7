"""Soft trajectories of the running engine equal a Hugging Face loop (contract, invariant 2)."""

import pytest
import tiny_models
import torch
from model_table import Row
from one_thread import one_thread  # noqa: F401
from oracle import Oracle, Request, Trajectory
from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.model_loader.utils import get_model_architecture

from soft_sglang.kernels.noise import gumbel

WEIGHT_TOLERANCE = 1e-4
MARGIN = 1e-6
"""Of every decision of the oracle. The engine's weights are right to 1e-6; where a model amplifies
rounding, to 1e-5 at the end of a trajectory."""
PROMPTS = [[17, 42, 99, 5, 64], [200, 31], [77, 78, 79, 80, 81, 82, 83, 84, 85], [5] * 20]
SEED = 1234


def _noise(step: int, ids: torch.Tensor) -> torch.Tensor:
    drawn = gumbel(torch.tensor([SEED]), torch.tensor([step]), ids[None])
    return drawn[0].double()


def _requests(oracle: Oracle) -> list[Request]:
    """Plain, filtered, Cold Stop, a natural think-end, and noise."""
    plain = Request(PROMPTS[0], temperature=0.8, max_topk=6)
    natural = oracle.run(plain).ids
    later = next(token for i, token in enumerate(natural) if i >= 12 and token not in natural[:i])
    return [
        plain,
        Request(PROMPTS[1], temperature=0.6, top_k=30, top_p=0.95, min_p=0.001, max_topk=10),
        Request(PROMPTS[2], max_topk=8, entropy_threshold=6.0, length_threshold=17),
        Request(PROMPTS[0], temperature=0.8, max_topk=6, think_end=later),
        Request(PROMPTS[3], temperature=0.9, top_p=0.8, max_topk=32, gumbel=_noise),
    ]


def _check(output: dict, expected: Trajectory) -> float:
    """Check one answer; its largest error of a weight."""
    assert output["output_ids"] == expected.ids
    answer = output["meta_info"]["soft_thinking"]
    assert answer["end"] == expected.end
    assert answer["steps"] == len(expected.concepts)
    assert answer["mean_entropy"] == pytest.approx(
        sum(expected.entropies) / len(expected.entropies), abs=1e-4
    )
    assert len(answer["concepts"]) == len(expected.concepts)
    error = 0.0
    for got, want in zip(answer["concepts"], expected.concepts, strict=True):
        assert sum(weight for _, weight in got) == pytest.approx(1, abs=1e-5)
        weights, exact = dict(got), dict(want)
        for token in weights | exact:
            error = max(error, abs(weights.get(token, 0.0) - exact.get(token, 0.0)))
    assert error < WEIGHT_TOLERANCE
    return error


@pytest.mark.parametrize(
    "architecture",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in tiny_models.SIBLINGS else [])
        for name in tiny_models.ARCHITECTURES
    ],
)
def test_trajectories_equal_the_oracle(architecture, house, tiny_model, model_table):
    tiny, path = tiny_models.ARCHITECTURES[architecture], tiny_model(architecture)
    oracle = Oracle(path)
    requests = _requests(oracle)
    expected = [oracle.run(request) for request in requests]
    ends = [trajectory.end for trajectory in expected]
    assert ends == ["length", "length", "cold_stop", "think_end", "length"]
    assert min(trajectory.margin for trajectory in expected) > MARGIN, "ambiguous data"

    engine = house.get(path, tiny.environment, max_total_tokens=4096, **tiny.engine)
    assert not engine.server_args.disable_overlap_schedule
    outputs = engine.generate(
        input_ids=[request.prompt for request in requests] + PROMPTS[:2],
        sampling_params=[request.sampling_params(sampling_seed=SEED) for request in requests]
        + [{"temperature": 0, "max_new_tokens": 64, "ignore_eos": True}] * 2,
    )

    errors = [
        _check(output, trajectory)
        for output, trajectory in zip(outputs[: len(requests)], expected, strict=True)
    ]
    for output, prompt in zip(outputs[len(requests) :], PROMPTS[:2], strict=True):
        assert output["output_ids"] == oracle.greedy(prompt, 64)
        assert "soft_thinking" not in output["meta_info"]

    model_class, _ = get_model_architecture(ModelConfig.from_server_args(engine.server_args))
    model_table.add(
        Row(
            architecture,
            model_class.__name__,
            tiny.kind,
            "tied" if oracle.has_tied_head else "untied",
            tiny.special,
            sum(len(output["output_ids"]) for output in outputs),
            max(errors),
        )
    )


WINDOWED = [
    name
    for name, tiny in tiny_models.ARCHITECTURES.items()
    if tiny.config.get("sliding_window") == tiny_models.WINDOW
]


@pytest.mark.parametrize("architecture", WINDOWED)
def test_sliding_windows_are_shorter_than_the_trajectories(architecture, tiny_model):
    """Without its window the model would answer otherwise: the test above sees the window."""
    path = tiny_model(architecture)
    windowed, wide = Oracle(path), Oracle(path, config={"sliding_window": 1024})
    request = Request(PROMPTS[0], temperature=0.8, max_topk=6)
    assert windowed.run(request).ids != wide.run(request).ids
