"""Both operations in CUDA graphs: captured once, replayed on other inputs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import tolerances
import torch
from filters import FILTERS
from float64_oracle import Row
from random_inputs import generator, random_logits
from steps import Batch, Request, check
from test_embedding_kernel import concepts, exact, inputs

from soft_sglang.kernels.concept_embedding import concept_embedding
from soft_sglang.kernels.thinking_step import StepResult, thinking_step
from soft_sglang.state_machine import Phase

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="only a CUDA device captures graphs"
)
DISCRETE = Request(Row(top_k=5), phase=Phase.DISCRETE)


def captured(call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """The graph of a call and its result; the call has run before, which compiles it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


@pytest.mark.parametrize("samples", [False, True])
@pytest.mark.parametrize("noise", ["none", "gumbel", "dirichlet"])
def test_thinking_step(samples: bool, noise: str) -> None:
    rng = generator("graph", samples, noise)
    names = iter(FILTERS)

    def another_batch() -> Batch:
        """Other requests in another order and in other slots, for the same plan."""
        row = FILTERS[next(names)]
        # without top-k Dirichlet noise is drawn for the candidates, not for all tokens
        row = replace(row, top_k=row.top_k or 20)
        requests = [
            Request(row, seed=7, step=3, noise=noise, think_end=9),
            Request(Row(top_k=9), think_end=9, entropy_threshold=9.0, length_threshold=1),
            DISCRETE,
            DISCRETE,
        ]
        order = torch.randperm(4, generator=rng).tolist()
        return Batch([requests[i] for i in order], width=32, candidates=32, key=order)

    static = another_batch()
    logits = random_logits("ordinary", 4, 5000, torch.float32, rng).cuda()
    sampling, plan = static.sampling, static.plan(samples=samples, with_unfiltered=samples)
    graph, result = captured(
        lambda: thinking_step(logits, sampling, static.table, static.slots, None, plan)
    )
    for _ in range(4):
        other = another_batch()
        before = other.copy()
        fresh = random_logits("ordinary", 4, 5000, torch.float32, rng)
        logits.copy_(fresh)
        for target, source in zip(
            (*static.table, static.slots, *sampling),
            (*other.table, other.slots, *other.sampling),
            strict=True,
        ):
            target.copy_(source)
        graph.replay()
        for target, source in zip(other.table, static.table, strict=True):
            target.copy_(source)
        check(other, before, fresh, StepResult(*(column.clone() for column in result)))
        for i, request in enumerate(other.requests):
            if request.phase is Phase.DISCRETE:
                token = int(result.token[i])
                assert token in fresh[i].topk(5).indices if samples else token == -1


def test_replays_draw_anew() -> None:
    """The random numbers of sampled rows advance with every replay."""
    static = Batch([DISCRETE] * 64)
    logits = torch.zeros(64, 100, device="cuda")
    sampling, plan = static.sampling, static.plan(samples=True)
    graph, result = captured(
        lambda: thinking_step(logits, sampling, static.table, static.slots, None, plan)
    )
    draws = []
    for _ in range(3):
        graph.replay()
        draws.append(result.token.tolist())
    assert len({tuple(draw) for draw in draws}) == 3


def test_concept_embedding() -> None:
    rng = generator("graph embedding")
    weight = torch.randn(90, 1536, generator=rng)
    on_device = weight.cuda()
    static = [tensor.cuda() for tensor in (torch.zeros(6, dtype=torch.int64), *concepts(9, rng))]
    static.append(torch.arange(6).cuda())
    graph, result = captured(lambda: concept_embedding(on_device, *static))
    for _ in range(3):
        ids, weights = concepts(9, rng)
        slots = torch.randint(0, 7, (6,), generator=rng)
        fresh = [inputs(ids, weights, slots), ids, weights, slots]
        for target, source in zip(static, fresh, strict=True):
            target.copy_(source)
        graph.replay()
        expected = exact(weight, *fresh)
        torch.testing.assert_close(
            result.cpu().double(), expected, **tolerances.EMBEDDING[torch.float32]
        )
