"""A retracted soft request goes on where it was: its concepts are fed again (invariant 3).

Also with the prefill cut into chunks, through the prompt and through the concepts, and mixed with
the decode steps of others.
"""

import pytest
from house import PAGED
from tiny_models import EOS
from traces import close

REQUESTS = 8
STEPS = 80
PROMPTS = [[20 + i, 30, 40, 50 + i, 60] * 4 for i in range(REQUESTS)]


def _sampling(i: int) -> dict:
    # not ignore_eos: since 0.5.22 SGLang then reserves all tokens, and a small pool retracts nobody
    never_ends = {"max_new_tokens": STEPS, "logit_bias": {str(EOS): -100.0}}
    common = {"temperature": 0.8, "sampling_seed": i, **never_ends}
    soft = {"return_concepts": True, "max_topk": 3 + i, "after_thinking_temperature": 0}
    kinds = [
        {"early_stopping_entropy_threshold": 0},
        {"early_stopping_entropy_threshold": 6.0, "early_stopping_length_threshold": 50},
        {"noise": "gumbel", "early_stopping_entropy_threshold": 0},
        None,
    ]
    kind = kinds[i % 4]
    if kind is None:
        return {**common, "temperature": 0}
    return {**common, "soft_thinking": {**soft, **kind}}


SAMPLINGS = [_sampling(i) for i in range(REQUESTS)]


@pytest.fixture(scope="module")
def undisturbed(house, tiny_model):
    """Each request alone."""
    engine = house.get(tiny_model("llama"))
    return [
        engine.generate(input_ids=prompt, sampling_params=sampling)
        for prompt, sampling in zip(PROMPTS, SAMPLINGS, strict=True)
    ]


CHUNKS = {"chunked_prefill_size": 32}
CONFIGURATIONS = {
    "retracted": {},
    "retracted, in chunks": CHUNKS,
    "retracted, in mixed chunks": {**CHUNKS, "enable_mixed_chunk": True},
    "retracted, in pages": {"page_size": 16},
    "retracted, without overlap": {"disable_overlap_schedule": True},
    "small pool": {"max_total_tokens": 400},
    "mixed chunks": {"chunked_prefill_size": 16, "enable_mixed_chunk": True},
}
"""By name; "retracted" makes SGLang retract requests every few steps, as its own tests do."""


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_results_do_not_depend_on_retraction_or_chunks(name, undisturbed, house, tiny_model):
    configuration = CONFIGURATIONS[name]
    environment = PAGED if "page_size" in configuration else {}
    if "retracted" in name:
        environment = {
            **environment,
            "SGLANG_TEST_RETRACT": "1",
            "SGLANG_TEST_RETRACT_INTERVAL": "13",
        }
    engine = house.get(
        tiny_model("llama"), environment, schedule_conservativeness=0.01, **configuration
    )
    # SGLang retracts the last of equals: each kind of soft request takes its turn there
    for turn in range(3):
        order = [(i + turn + 1) % REQUESTS for i in range(REQUESTS)]
        outputs = engine.generate(
            input_ids=[PROMPTS[i] for i in order],
            sampling_params=[SAMPLINGS[i] for i in order],
        )
        for i, output in zip(order, outputs, strict=True):
            _check(output, undisturbed[i])
        retractions = [output["meta_info"]["num_retractions"] for output in outputs]
        if "retracted" in name:
            assert retractions[-1] >= 3, retractions
        elif name == "small pool":
            assert sum(retractions) >= 1


def _check(output: dict, alone: dict) -> None:
    assert output["output_ids"] == alone["output_ids"]
    before, after = (o["meta_info"].get("soft_thinking") for o in (alone, output))
    if before is None:
        assert after is None
        return
    assert (after["steps"], after["end"]) == (before["steps"], before["end"])
    assert close(after["concepts"], before["concepts"])
