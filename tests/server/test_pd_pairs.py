"""Pairs of a prefill and a decode server that are started otherwise than usual."""

from importlib import metadata

import pytest
from asking import PROMPT, TRACED, same_trace
from packaging.version import Version
from server_pair import WITHOUT_PLUGIN, Role, ServerPair

pytestmark = pytest.mark.slow

SOFT = {**TRACED, "early_stopping_entropy_threshold": 0}
TOKENS = 24


@pytest.fixture
def start(tmp_path):
    """Starts pairs, and ends them."""
    pairs = []

    def started(*flags, **roles):
        pairs.append(ServerPair(tmp_path, *flags, **roles))
        pairs[-1].wait_until_ready()
        return pairs[-1]

    yield started
    for pair in pairs:
        pair.stop()


def body_of(soft, **own):
    sampling = {"max_new_tokens": TOKENS, "temperature": 0 if soft is None else 0.8}
    if soft is not None:
        sampling["soft_thinking"] = soft
    return {"text": PROMPT, "sampling_params": {**sampling, "sampling_seed": 7, **own}}


def test_a_decode_server_with_a_prefix_cache(start, http):
    """It shares prompts, and nothing that was computed from a concept, also of resumed requests.

    The prefill server gives every request up once before it has it bootstrapped, and both think
    softly unless told otherwise: SGLang's health checks too.
    """
    pair = start(
        "--enable-soft-thinking",
        prefill=Role(environment={"SGLANG_TEST_FORCE_OPTIMISTIC_PREFILL_RETRY_PROB": "1"}),
        decode=Role(
            ("--disaggregation-decode-enable-radix-cache",),
            {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "5"},
        ),
    )
    alone = http.post("/generate", json=body_of(SOFT)).json()
    retractions = 0
    for _ in range(2):
        output = pair.ask("/generate", body_of(SOFT)).json()
        assert output["output_ids"] == alone["output_ids"]
        assert same_trace(output["meta_info"]["soft_thinking"], alone["meta_info"]["soft_thinking"])
        retractions += output["meta_info"]["num_retractions"]
    assert retractions >= 2

    prompt = http.post("/tokenize", json={"prompt": PROMPT, "add_special_tokens": False}).json()
    follow_up = {
        "input_ids": [*prompt["tokens"], *alone["output_ids"]],
        "sampling_params": {"max_new_tokens": 8, "temperature": 0, "soft_thinking": False},
    }
    assert http.post("/flush_cache").status_code == 200
    fresh = http.post("/generate", json=follow_up).json()
    output = pair.ask("/generate", follow_up).json()
    assert output["output_ids"] == fresh["output_ids"]
    assert 0 < output["meta_info"]["cached_tokens"] <= len(prompt["tokens"])


def test_a_decode_server_without_the_plugin(start, http):
    pair = start(decode=WITHOUT_PLUGIN)
    ordinary = body_of(None)
    output = pair.ask("/generate", ordinary).json()
    assert output["output_ids"] == http.post("/generate", json=ordinary).json()["output_ids"]
    # stock SGLang knows no such sampling parameter: it is asked as a completion
    body = {"model": "any", "prompt": PROMPT, "max_tokens": 8, "soft_thinking": SOFT}
    response = pair.ask("/v1/completions", body)
    assert response.status_code == 500, response.text
    with pair.gateway.http() as gateway:
        assert gateway.post("/v1/completions", json=body).status_code == 500


def test_a_prefill_server_without_the_plugin(start, http):
    pair = start(prefill=WITHOUT_PLUGIN)
    body = {"model": "any", "prompt": PROMPT, "max_tokens": 8, "soft_thinking": SOFT}
    response = pair.ask("/v1/completions", body)
    assert not response.is_success, response.text
    ordinary = body_of(None)
    output = pair.ask("/generate", ordinary)
    if Version(metadata.version("sglang")) < Version("0.5.23"):  # wants as many buffers on both
        assert not output.is_success
        return
    assert "soft_thinking needs the plugin on both servers" in response.text
    alone = http.post("/generate", json=ordinary).json()
    assert output.json()["output_ids"] == alone["output_ids"]
