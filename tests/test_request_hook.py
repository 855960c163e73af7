"""What reaches the scheduler of a request's parameters, whatever the request says."""

from types import SimpleNamespace

import pytest
import tiny_models

from soft_sglang.options import ServerOptions
from soft_sglang.parameters import FLAT_NAMES, WIRE_KEY, SoftThinkingParams, request_fields
from soft_sglang.patches.announcement import Support, attach_support
from soft_sglang.patches.front_end.asking import asking
from soft_sglang.patches.front_end.tokenizer_requests import resolve_request, vocabulary_of
from soft_sglang.patches.options import attach_options
from soft_sglang.patches.scheduler.request import reporter_of, trace_of
from soft_sglang.trace import ClosedThought

EOS, THINK, THINK_END = tiny_models.EOS, tiny_models.THINK, tiny_models.THINK_END


def _manager(preferred=None, vocab_size=tiny_models.VOCAB_SIZE, turn_ends=None, **options):
    server_args = SimpleNamespace(disaggregation_mode="null")
    attach_options(server_args, ServerOptions(**options))
    return SimpleNamespace(
        preferred_sampling_params=preferred,
        server_args=server_args,
        tokenizer=tiny_models.tokenizer(),
        model_config=SimpleNamespace(vocab_size=vocab_size, hf_eos_token_id=turn_ends),
    )


def _generate(sampling_params):
    refused = ("input_embeds", "positional_embed_overrides", "session_params", "session_id")
    return SimpleNamespace(
        sampling_params=sampling_params,
        return_logprob=False,
        return_sampling_mask=False,
        **dict.fromkeys(refused),
    )


def _resolved(sampling_params, manager=None, prompt=()):
    request = _generate(sampling_params)
    resolve_request(manager or _manager(), request, prompt)
    return request.sampling_params


def _params(sampling_params, manager=None, prompt=()):
    resolved = _resolved(sampling_params, manager, prompt)
    return SoftThinkingParams.from_wire(resolved["custom_params"][WIRE_KEY])


def _at_the_scheduler(sampling_params, prompt=(5,)):
    """The scheduler's request, as far as its trace looks."""
    from sglang.srt.sampling.sampling_params import SamplingParams

    return SimpleNamespace(
        sampling_params=SamplingParams(**_resolved(sampling_params, prompt=prompt)),
        origin_input_ids=list(prompt),
        vocab_size=tiny_models.VOCAB_SIZE,
    )


@pytest.mark.parametrize(
    "sampling", [None, {}, {"custom_params": {}}, {"custom_params": {"a": 1}, "top_p": 0.5}]
)
def test_a_discrete_request_is_left_as_it_is(sampling):
    assert _resolved(sampling) == (sampling or {})


def test_a_soft_request_keeps_its_other_custom_params():
    custom = _resolved({"soft_thinking": True, "custom_params": {"a": 1}})["custom_params"]
    params = SoftThinkingParams.from_wire(custom.pop(WIRE_KEY))
    assert custom == {"a": 1}
    assert (params.max_topk, params.think_end_ids) == (10, (THINK_END,))


def test_a_request_cannot_write_the_wire_key():
    forged = {"custom_params": {WIRE_KEY: {"max_topk": 10**9}}}
    assert _resolved(forged) == {"custom_params": None}


def test_resolving_twice_is_harmless():
    manager, request = _manager(enable_soft_thinking=True), _generate({"sampling_seed": 5})
    resolve_request(manager, request, ())
    once = request.sampling_params
    resolve_request(manager, request, ())
    assert request.sampling_params == once


@pytest.mark.parametrize("field", [False, None, {"enabled": False}])
def test_an_embedding_request_carries_nothing(field):
    request = SimpleNamespace(sampling_params={"custom_params": {"soft_thinking": field}})
    resolve_request(_manager(), request, ())
    assert request.sampling_params == {"custom_params": None}


@pytest.mark.parametrize("where", ["sampling_params", "custom_params", "the request"])
@pytest.mark.parametrize("field", [True, {}, {"max_topk": 3}, "x"])
def test_an_embedding_request_cannot_ask(where, field):
    own = {"soft_thinking": field}
    request = SimpleNamespace(sampling_params={"custom_params": own})
    if where != "custom_params":
        request.sampling_params = own if where == "sampling_params" else None
    with asking(field if where == "the request" else None), pytest.raises(ValueError) as caught:  # noqa: PT011
        resolve_request(_manager(), request, ())
    assert "soft_thinking cannot be asked for where nothing is generated" in str(caught.value)


def test_a_field_beside_the_sampling_parameters_counts():
    with asking({"max_topk": 3}):
        assert _params({}).max_topk == 3
        assert _params({"soft_thinking": {"max_topk": 3}}).max_topk == 3
        with pytest.raises(ValueError, match="given twice with different values"):
            _params({"soft_thinking": True})


def test_preferred_parameters_of_the_server_give_way():
    manager = _manager({"soft_thinking": {"max_topk": 4}})
    assert _params({"custom_params": {"soft_thinking": {"max_topk": 5}}}, manager).max_topk == 5
    with asking(False):
        assert _resolved({}, manager) == {}


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
    attach_support(manager.server_args, Support("this server runs with speculative decoding"))
    assert _resolved({"top_k": 3}, manager) == {"top_k": 3}
    with pytest.raises(ValueError, match="not available: this server runs with speculative"):
        _resolved({"soft_thinking": True}, manager)


@pytest.mark.parametrize(
    ("top_k", "planned"), [(30, 30), (255, 255), (256, 1 << 30), (10**6, 1 << 30)]
)
def test_a_top_k_beyond_the_vocabulary_is_off(top_k, planned):
    trace = trace_of(_at_the_scheduler({"soft_thinking": True, "top_k": top_k}))
    assert trace.top_k == planned
    assert trace.answer.top_k == planned


# The markers of thinking.


@pytest.mark.parametrize("name", sorted(request_fields(ServerOptions()).keys() - FLAT_NAMES))
def test_other_names_are_left_to_sglang_to_refuse(name):
    """Directly in ``sampling_params`` stand those of the public implementation only."""
    from sglang.srt.sampling.sampling_params import SamplingParams

    sampling = _resolved({"soft_thinking": True, name: None})
    assert name in sampling
    with pytest.raises(TypeError, match=name):
        SamplingParams(**sampling)


@pytest.mark.parametrize("mode", ["null", "prefill", "decode"])
def test_samples_of_a_request_on_a_pair_of_servers(mode):
    manager = _manager()
    manager.server_args.disaggregation_mode = mode
    for n in (None, 1):
        _params({"n": n, "soft_thinking": True}, manager)
    _resolved({"n": 2}, manager)  # an ordinary request is SGLang's business
    if mode == "null":
        _params({"n": 2, "soft_thinking": True}, manager)
        return
    with pytest.raises(ValueError, match=r"^n must be 1 on a pair .*, got 2"):
        _params({"n": 2, "soft_thinking": True}, manager)


def test_markers_are_looked_up_in_the_models_tokenizer():
    soft = {
        "think_end_str": "w5 </think>",
        "cold_stop_str": "w9 w8 w5 </think>",
        "think_start_str": "w6 w7",
        "rethink": True,
    }
    params = _params({"soft_thinking": soft})
    assert params.think_end_ids == (5, THINK_END)
    assert params.cold_stop_ids == (9, 8, 5, THINK_END)
    assert params.think_start_ids == (6, 7)


@pytest.mark.parametrize(
    ("turn_ends", "expected"),
    [(None, {EOS}), (set(), {EOS}), ({EOS}, {EOS}), ({40, 41}, {EOS, 40, 41})],
)
def test_turns_end_with_the_models_tokens(turn_ends, expected):
    vocabulary = vocabulary_of(_manager(turn_ends=turn_ends))
    assert vocabulary.turn_ends == expected
    assert vocabulary.size == tiny_models.VOCAB_SIZE


def test_a_tokenizer_without_an_end():
    manager = _manager(turn_ends={40})
    manager.tokenizer.eos_token = None
    assert vocabulary_of(manager).turn_ends == {40}


def test_without_a_tokenizer_there_is_no_vocabulary():
    manager = _manager()
    manager.tokenizer = None
    with pytest.raises(ValueError, match=r"^soft_thinking needs a tokenizer"):
        _resolved({"soft_thinking": True}, manager)
    assert _resolved({"top_k": 3}, manager) == {"top_k": 3}


@pytest.mark.parametrize(
    ("prompt", "closed"),
    [
        ([], False),
        ([5, THINK], False),
        ([5, THINK, 6, THINK_END, 7], True),
        ([5, THINK_END, EOS, 6], False),
        ([5, THINK_END, 40, 6], False),
        ([5, THINK_END, 41, 6], True),
    ],
)
def test_the_prompt_tells_where_a_request_begins(prompt, closed):
    manager = _manager(turn_ends={40})
    assert _params({"soft_thinking": True}, manager, prompt).closed == closed
    opened = {"soft_thinking": {"start": "thinking"}}
    assert not _params(opened, manager, prompt).closed


CLOSED = [THINK, 6, THINK_END, 7]
OWN = {"temperature": 0.5, "top_p": 0.75, "top_k": 20, "min_p": 0.125}
AFTER = {"after_thinking_temperature": 0.25, "after_thinking_top_k": 5}


@pytest.mark.parametrize(
    ("soft", "prompt", "temperature", "top_k"),
    [
        (AFTER, CLOSED, 0.25, 5),
        (AFTER, [5], 0.5, 20),
        ({}, CLOSED, 0.5, 20),
        ({**AFTER, "rethink": True}, CLOSED, 0.5, 20),  # may still think as it asks
        ({**AFTER, "policy": "mixture_of_inputs"}, CLOSED, 0.5, 20),
    ],
)
def test_a_request_that_never_thinks_is_sampled_as_its_answer(soft, prompt, temperature, top_k):
    manager = _manager()
    attach_support(manager.server_args, Support(policies=frozenset({"mixture_of_inputs"})))
    sampling = _resolved({**OWN, "soft_thinking": soft}, manager, prompt)
    del sampling["custom_params"]
    assert sampling == {**OWN, "temperature": temperature, "top_k": top_k}


@pytest.mark.parametrize(
    ("soft", "thinks"), [({}, False), ({"rethink": True}, True), ({"start": "thinking"}, True)]
)
def test_a_request_that_never_thinks_has_no_trace(soft, thinks):
    """It is an ordinary one, but it reports."""
    request = _at_the_scheduler({"soft_thinking": soft}, prompt=CLOSED)
    reporter = reporter_of(request)
    assert (trace_of(request) is reporter) == thinks
    assert (trace_of(request) is None) == isinstance(reporter, ClosedThought) == (not thinks)
    assert reporter_of(request) is reporter  # one for the whole request
    report = reporter.report("stop")
    assert (report["steps"], report["end"]) == (
        (0, "closed") if soft != {"start": "thinking"} else (0, "stop")
    )


def test_a_discrete_request_reports_nothing():
    request = _at_the_scheduler({"soft_thinking": False}, prompt=CLOSED)
    assert reporter_of(request) is None and trace_of(request) is None
