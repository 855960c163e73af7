"""A model with states beside its key-value pairs: trajectories, and what the prefix cache shares.

LFM2, whose short convolutions keep their states in SGLang's Mamba pool. SGLang knows it without the
extra buffer only, that is with pages of one token and without overlap.
"""

import pytest
import tiny_models
import torch
from one_thread import one_thread  # noqa: F401
from oracle import Oracle, Request
from plugins.installation import install
from tiny_models import THINK_END, Architecture
from tolerances import TRACE_WEIGHT
from traces import close

from soft_sglang.kernels.noise import gumbel

LFM2 = Architecture(
    "lfm2",
    26,
    config={
        "num_hidden_layers": 3,
        "layer_types": ["conv", "full_attention", "conv"],
        "conv_L_cache": 3,
        "block_auto_adjust_ff_dim": False,
    },
    embedding_std=0.5,
    layer_std=0.05,
)
MARGIN = 1e-6
"""Of every decision of the oracle. This model does not amplify rounding: in float32 and in float64
its trajectories are within 1e-7 of one another."""
ENVIRONMENT = {"SGLANG_MAMBA_CONV_DTYPE": "float32"}
"""SGLang rounds the states to bfloat16 otherwise."""
SEED = 1234
STEPS = 24
LENGTH = 40
MORE = [7]
GREEDY = {"temperature": 0, "max_new_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of the model, with the plugin on the path of the engine's processes."""
    with pytest.MonkeyPatch.context() as patch:
        for path in install("lend_conv_kernels", tmp_path_factory.mktemp("plugin")):
            patch.syspath_prepend(path)
        patch.setitem(tiny_models.ARCHITECTURES, "lfm2", LFM2)
        yield tiny_models.create("lfm2", tmp_path_factory.mktemp("lfm2"))


@pytest.fixture(scope="module")
def oracle(model):
    return Oracle(model)


@pytest.fixture
def engine(house, model):
    return house.get(model, ENVIRONMENT, max_total_tokens=4096, max_mamba_cache_size=64)


def _noise(step, ids):
    return gumbel(torch.tensor([SEED]), torch.tensor([step]), ids[None])[0].double()


def _requests(oracle):
    """Plain, filtered, Cold Stop, a natural think-end, and noise."""
    plain = Request([17, 42, 99, 5, 64], STEPS, temperature=0.8, max_topk=6)
    natural = oracle.run(plain).ids
    later = next(token for i, token in enumerate(natural) if i >= 8 and token not in natural[:i])
    return [
        plain,
        Request([200, 31], STEPS, temperature=0.6, top_k=30, top_p=0.95, min_p=0.001),
        Request([*range(77, 86)], STEPS, entropy_threshold=6.0, length_threshold=9),
        Request(plain.prompt, STEPS, temperature=0.8, max_topk=6, think_end=later),
        Request([5] * 20, STEPS, temperature=0.9, top_p=0.8, max_topk=32, gumbel=_noise),
    ]


def _prompt(number):
    """Prompts that share no prefix."""
    return [100 + number, *range(20, 19 + LENGTH)]


def _soft(prompt, steps=STEPS):
    return Request(prompt, steps, temperature=0.8, max_topk=6)


def _check_soft(output, expected):
    assert output["output_ids"] == expected.ids
    answer = output["meta_info"]["soft_thinking"]
    assert answer["end"] == expected.end
    assert close(answer["concepts"], expected.concepts)


def _check_shared(engine, oracle, prompt, shared):
    """A discrete request finds that many of its tokens, and answers as ever."""
    output = engine.generate(input_ids=prompt, sampling_params=GREEDY, return_logprob=True)
    found = output["meta_info"]["cached_tokens"]
    assert found in shared
    ids = output["output_ids"]
    assert ids == oracle.greedy(prompt, GREEDY["max_new_tokens"])
    # a wrong state need not change the heaviest token
    logits = oracle.follow(prompt, [[(token, 1.0)] for token in ids])
    expected = torch.log_softmax(logits, -1)[range(len(ids)), ids].tolist()
    logprobs = [logprob for logprob, *_ in output["meta_info"]["output_token_logprobs"]]
    assert logprobs == pytest.approx(expected, **TRACE_WEIGHT)
    return found


def test_trajectories_equal_the_oracle(engine, oracle):
    requests = _requests(oracle)
    expected = [oracle.run(request) for request in requests]
    ends = [trajectory.end for trajectory in expected]
    assert ends == ["length", "length", "cold_stop", "think_end", "length"]
    assert min(trajectory.margin for trajectory in expected) > MARGIN, "ambiguous data"
    *outputs, discrete = engine.generate(
        input_ids=[request.prompt for request in requests] + [requests[0].prompt],
        sampling_params=[request.sampling_params(sampling_seed=SEED) for request in requests]
        + [GREEDY],
    )
    for output, trajectory in zip(outputs, expected, strict=True):
        _check_soft(output, trajectory)
    assert discrete["output_ids"] == oracle.greedy(requests[0].prompt, GREEDY["max_new_tokens"])


@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_nobody_finds_what_a_soft_request_computed(engine, oracle, steps):
    prompt = _prompt(steps)
    output = engine.generate(
        input_ids=prompt, sampling_params=_soft(prompt, steps).sampling_params()
    )
    # a prompt enters the tree after its prefill, if the request goes on
    shared = {LENGTH if steps > 1 else 0}
    _check_shared(engine, oracle, prompt + output["output_ids"] + MORE, shared)


def test_prompts_are_shared(engine, oracle):
    prompt = _prompt(0)
    longer = prompt + MORE
    # a state is that of the end of an earlier prompt: the same prompt again finds nothing
    for follow_up, found in (
        (prompt, 0),
        (prompt, 0),
        (longer, LENGTH),
        (longer + MORE, LENGTH + 1),
    ):
        output = engine.generate(
            input_ids=follow_up, sampling_params=_soft(follow_up).sampling_params()
        )
        _check_soft(output, oracle.run(_soft(follow_up)))
        assert output["meta_info"]["cached_tokens"] == found
    _check_shared(engine, oracle, [*prompt, 4, 5], {LENGTH})


def test_an_aborted_request_leaves_only_its_prompt(engine, oracle):
    prompt = _prompt(30)
    sampling = _soft(prompt, 900).sampling_params(logit_bias={str(THINK_END): -100})
    stream = engine.generate(input_ids=prompt, sampling_params=sampling, stream=True, rid="gone")
    for chunk in stream:
        if chunk["meta_info"]["completion_tokens"] >= 30:
            engine.tokenizer_manager.abort_request("gone")
            break
    *_, last = [chunk, *stream]
    assert last["meta_info"]["soft_thinking"]["end"] == "abort"
    _check_shared(engine, oracle, prompt + last["output_ids"][:30] + MORE, {LENGTH})
    _check_shared(engine, oracle, prompt + MORE, {LENGTH})


@pytest.mark.slow
def test_a_prompt_that_was_evicted_meanwhile_is_not_shared(house, model, oracle):
    """With few states, others' prefills evict that of a prompt; its request goes on, or is resumed.

    While a request runs, SGLang locks the state of its prompt unless told otherwise.
    """
    environment = {
        **ENVIRONMENT,
        "SGLANG_OPT_MAMBA_SKIP_DECODE_LOCK": "1",
        "SGLANG_TEST_RETRACT": "1",
        "SGLANG_TEST_RETRACT_INTERVAL": "13",
    }
    engine = house.get(model, environment, max_total_tokens=4096, max_mamba_cache_size=12)
    # short ones pass by while the long ones run
    requests = [_soft(_prompt(40 + number), 2 if number % 4 else 40) for number in range(16)]
    expected = [oracle.run(request) for request in requests]
    assert min(trajectory.margin for trajectory in expected) > MARGIN, "ambiguous data"
    outputs = engine.generate(
        input_ids=[request.prompt for request in requests],
        sampling_params=[request.sampling_params() for request in requests],
    )
    for output, trajectory in zip(outputs, expected, strict=True):
        _check_soft(output, trajectory)
    assert sum(output["meta_info"]["num_retractions"] for output in outputs) >= 3
    # the last to finish first: the answers to these evict what others left
    found = [
        _check_shared(engine, oracle, request.prompt + MORE, {0, LENGTH})
        for request in reversed(requests[::4])
    ]
    assert 0 in found, "nothing was evicted"
