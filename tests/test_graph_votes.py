"""Ranks that attend apart agree on a step's graph: a rank votes against one that cannot feed it."""

import inspect
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sglang.srt.managers.scheduler_components import dp_attn
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from soft_batches import ANSWER, PARAMS

from soft_sglang.patches import plugin
from soft_sglang.patches.model_worker import eager
from soft_sglang.trace import RequestTrace

EXTEND, MIXED, DECODE = ForwardMode.EXTEND, ForwardMode.MIXED, ForwardMode.DECODE


def request(policy: str = "soft_thinking", steps: int = 0) -> SimpleNamespace:
    """A scheduler's request that has taken some steps."""
    trace = RequestTrace(replace(PARAMS, policy=policy), 5, ANSWER, top_k=30)
    for _ in range(steps):
        ids, weights = np.array([7, 8]), np.array([0.5, 0.5], dtype=np.float32)
        trace.commit(7, ids, weights, 1.0, 7, True)
    return SimpleNamespace(soft_thinking=trace)


DISCRETE = SimpleNamespace(soft_thinking=None)
FRESH, RESUMED, COCONUT = request(), request(steps=3), request("coconut_tf")


def batch(mode: ForwardMode, *reqs: SimpleNamespace, decoding: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        forward_mode=mode,
        reqs=list(reqs),
        decoding_reqs=list(reqs[len(reqs) - decoding :]) if decoding else None,
    )


PREFILLS = {
    "nothing": (None, True),
    "an idle rank": (batch(ForwardMode.IDLE), True),
    "discrete prompts": (batch(EXTEND, DISCRETE, DISCRETE), True),
    "prompts": (batch(EXTEND, FRESH, DISCRETE), True),
    "a prompt whose hidden state is fed": (batch(EXTEND, DISCRETE, COCONUT), False),
    "a resumed request": (batch(EXTEND, DISCRETE, RESUMED), False),
    "discrete steps beside a prompt": (batch(MIXED, DISCRETE, DISCRETE, decoding=1), True),
    "a step beside a prompt": (batch(MIXED, DISCRETE, FRESH, decoding=1), False),
    "discrete steps, to be seen as a prefill": (batch(DECODE, DISCRETE), True),
    "steps, to be seen as a prefill": (batch(DECODE, DISCRETE, FRESH), False),
    "steps that are seen as a prefill": (batch(EXTEND, FRESH, decoding=1), False),
}


@pytest.mark.parametrize("what", PREFILLS)
def test_vote_on_the_graph_of_a_prefill(what, monkeypatch):
    monkeypatch.setattr(eager, "server_captures_hidden", lambda: False)
    local_batch, vote = PREFILLS[what]
    assert eager.vote_on_prefill(True, local_batch=local_batch) is vote
    assert eager.vote_on_prefill(False, local_batch=local_batch) is False


def test_a_graph_that_keeps_hidden_states_prefills(monkeypatch):
    monkeypatch.setattr(eager, "server_captures_hidden", lambda: True)
    assert eager.vote_on_prefill(True, local_batch=batch(EXTEND, DISCRETE, COCONUT))


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("reqs", [[], [DISCRETE], [FRESH, RESUMED], [DISCRETE, COCONUT]])
def test_vote_on_the_graph_of_a_decode_step(reqs, captured, monkeypatch):
    monkeypatch.setattr(eager, "server_captures_hidden", lambda: captured)
    vote = captured or COCONUT not in reqs
    assert eager.vote_on_decode(True, local_batch=batch(DECODE, *reqs)) is vote
    assert eager.vote_on_decode(False, local_batch=batch(DECODE, *reqs)) is False


def test_sglang_counts_the_votes(monkeypatch):
    plugin.load()
    monkeypatch.setattr(eager, "server_captures_hidden", lambda: False)
    for local_batch, vote in [(batch(DECODE, FRESH), True), (batch(DECODE, COCONUT), False)]:
        cast = dp_attn._local_decode_cuda_graph_vote(
            local_batch=local_batch, disable_cuda_graph=False
        )
        assert cast is vote
    names = inspect.signature(dp_attn._local_prefill_cuda_graph_vote).parameters
    for req, vote in [(FRESH, True), (RESUMED, False)]:
        local_batch = batch(EXTEND, req)
        for name in ("input_embeds", "replace_embeds", "prefix_lens", "return_logprob"):
            setattr(local_batch, name, None)
        arguments = {**dict.fromkeys(names), "local_batch": local_batch, "coordinated_prefill": 1}
        assert dp_attn._local_prefill_cuda_graph_vote(**arguments) is vote
