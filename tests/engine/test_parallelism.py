"""Tensor parallelism changes no result, noise included; data parallelism serves soft requests."""

import pytest
from traces import close

STEPS = 48
PROMPTS = [[20 + i, 30, 40, 50 + i, 60] * (1 + i) for i in range(6)]
TWO_RANKS = {"SGLANG_CPU_OMP_THREADS_BIND": "0|1"}
"""Environment for two ranks on two cores."""
_SOFT = {"return_concepts": True, "after_thinking_temperature": 0, "max_topk": 6}
_NEVER_COLD = {**_SOFT, "early_stopping_entropy_threshold": 0}
_KINDS: list[dict | None] = [
    _NEVER_COLD,
    {**_NEVER_COLD, "noise": "gumbel"},
    {**_NEVER_COLD, "noise": "dirichlet", "dirichlet_alpha": 5.0},
    {
        **_SOFT,
        "early_stopping_entropy_threshold": 6.0,
        "early_stopping_length_threshold": 20,
        "noise": "gumbel",
    },
    None,
    {**_NEVER_COLD, "max_topk": 1},
]


def _sampling(seed: int, soft: dict | None) -> dict:
    common = {"max_new_tokens": STEPS, "ignore_eos": True, "sampling_seed": seed}
    if soft is None:
        return {**common, "temperature": 0}
    return {**common, "temperature": 0.8, "top_p": 0.95, "soft_thinking": soft}


SAMPLINGS = [_sampling(i, soft) for i, soft in enumerate(_KINDS)]


@pytest.fixture(scope="module")
def one_rank(house, tiny_model):
    """The results on a single rank."""
    engine = house.get(tiny_model("llama"))
    return engine.generate(input_ids=PROMPTS, sampling_params=SAMPLINGS)


@pytest.mark.parametrize("ranks", [{"tp_size": 2}, {"dp_size": 2}], ids=["tp=2", "dp=2"])
def test_results_equal_those_of_one_rank(ranks, one_rank, house, tiny_model):
    engine = house.get(tiny_model("llama"), TWO_RANKS, **ranks)
    outputs = engine.generate(input_ids=PROMPTS, sampling_params=SAMPLINGS)
    for output, expected in zip(outputs, one_rank, strict=True):
        assert output["output_ids"] == expected["output_ids"]
        got, want = (o["meta_info"].get("soft_thinking") for o in (output, expected))
        if want is None:
            assert got is None
        else:
            assert (got["steps"], got["end"]) == (want["steps"], want["end"])
            assert close(got["concepts"], want["concepts"])
    if "dp_size" in ranks:
        assert {output["meta_info"]["dp_rank"] for output in outputs} == {0, 1}
        assert engine.tokenizer_manager.soft_thinking_ask_schedulers is False
        states = engine.loop.run_until_complete(engine.tokenizer_manager.get_internal_state())
        assert [state["soft_thinking"] for state in states] == [_version()] * 2


def _version() -> str:
    from soft_sglang import __version__

    return __version__
