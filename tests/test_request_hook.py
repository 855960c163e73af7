"""What reaches the scheduler of a request's parameters, whatever the request says."""

from types import SimpleNamespace

import pytest
import tiny_models

from soft_sglang.options import ServerOptions
from soft_sglang.parameters import WIRE_KEY, SoftThinkingParams
from soft_sglang.patches.front_end.tokenizer_requests import resolve_request
from soft_sglang.patches.options import attach_options
from soft_sglang.patches.scheduler.request import trace_of


def _manager(preferred=None, vocab_size=tiny_models.VOCAB_SIZE, **options):
    server_args = SimpleNamespace()
    attach_options(server_args, ServerOptions(**options))
    return SimpleNamespace(
        preferred_sampling_params=preferred,
        server_args=server_args,
        tokenizer=tiny_models.tokenizer(),
        model_config=SimpleNamespace(vocab_size=vocab_size),
    )


def _generate(sampling_params):
    refused = ("input_embeds", "positional_embed_overrides", "session_params", "session_id")
    return SimpleNamespace(
        sampling_params=sampling_params,
        return_logprob=False,
        return_sampling_mask=False,
        **dict.fromkeys(refused),
    )


def _resolved(sampling_params, manager=None):
    request = _generate(sampling_params)
    resolve_request(manager or _manager(), request)
    return request.sampling_params


@pytest.mark.parametrize(
    "sampling", [None, {}, {"custom_params": {}}, {"custom_params": {"a": 1}, "top_p": 0.5}]
)
def test_a_discrete_request_is_left_as_it_is(sampling):
    assert _resolved(sampling) == (sampling or {})


def test_a_soft_request_keeps_its_other_custom_params():
    custom = _resolved({"soft_thinking": True, "custom_params": {"a": 1}})["custom_params"]
    params = SoftThinkingParams.from_wire(custom.pop(WIRE_KEY))
    assert custom == {"a": 1}
    assert (params.max_topk, params.think_end_id) == (10, tiny_models.THINK_END)


def test_a_request_cannot_write_the_wire_key():
    forged = {"custom_params": {WIRE_KEY: {"max_topk": 10**9}}}
    assert _resolved(forged) == {"custom_params": None}


def test_resolving_twice_is_harmless():
    manager, request = _manager(enable_soft_thinking=True), _generate({"sampling_seed": 5})
    resolve_request(manager, request)
    once = request.sampling_params
    resolve_request(manager, request)
    assert request.sampling_params == once


@pytest.mark.parametrize("field", [True, {"max_topk": 3}, "x"])
def test_an_embedding_request_carries_nothing(field):
    request = SimpleNamespace(sampling_params={"custom_params": {"soft_thinking": field}})
    resolve_request(_manager(), request)
    assert request.sampling_params == {"custom_params": None}


def test_preferred_parameters_of_the_server_count():
    preferred = {"soft_thinking": {"max_topk": 4}, "dirichlet_alpha": 2.0, "top_p": 0.9}
    manager = _manager(preferred)
    for _ in range(2):
        sampling = _resolved({"top_p": 0.8}, manager)
        params = SoftThinkingParams.from_wire(sampling["custom_params"][WIRE_KEY])
        assert (params.max_topk, params.dirichlet_alpha) == (4, 2.0)
        assert (params.after_thinking_top_p, sampling["top_p"]) == (0.8, 0.8)
    assert manager.preferred_sampling_params == {"top_p": 0.9}
    assert WIRE_KEY not in (_resolved({"soft_thinking": False}, manager).get("custom_params") or {})


def test_a_think_end_beyond_the_models_vocabulary_is_refused():
    request = {"soft_thinking": {"think_end_str": "w200"}}
    with pytest.raises(ValueError, match="'w200' is beyond the model's vocabulary"):
        _resolved(request, _manager(vocab_size=100))


def test_what_the_model_cannot_do_is_refused_only_if_asked():
    manager = _manager()
    manager.soft_thinking_unsupported = "this server runs with speculative decoding"
    assert _resolved({"top_k": 3}, manager) == {"top_k": 3}
    with pytest.raises(ValueError, match="not available: this server runs with speculative"):
        _resolved({"soft_thinking": True}, manager)


@pytest.mark.parametrize(
    ("top_k", "planned"), [(30, 30), (255, 255), (256, 1 << 30), (10**6, 1 << 30)]
)
def test_a_top_k_beyond_the_vocabulary_is_off(top_k, planned):
    from sglang.srt.sampling.sampling_params import SamplingParams

    sampling = _resolved({"soft_thinking": True, "top_k": top_k})
    request = SimpleNamespace(
        sampling_params=SamplingParams(**sampling),
        origin_input_ids=[5],
        vocab_size=tiny_models.VOCAB_SIZE,
    )
    trace = trace_of(request)
    assert trace.top_k == planned
    assert trace.answer.top_k == planned
