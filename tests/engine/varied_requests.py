"""A few requests of every kind, for engines that must give the same results as a plain one."""

from typing import Any

from traces import close

STEPS = 48
PROMPTS = [[20 + i, 30, 40, 50 + i, 60] * (1 + i) for i in range(6)]
_SOFT = {"return_concepts": True, "after_thinking_temperature": 0, "max_topk": 6}
_NEVER_COLD = {**_SOFT, "early_stopping_entropy_threshold": 0}
_KINDS: list[dict[str, Any] | None] = [
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


def _sampling(seed: int, soft: dict[str, Any] | None) -> dict[str, Any]:
    common = {"max_new_tokens": STEPS, "ignore_eos": True, "sampling_seed": seed}
    if soft is None:
        return {**common, "temperature": 0}
    return {**common, "temperature": 0.8, "top_p": 0.95, "soft_thinking": soft}


SAMPLINGS = [_sampling(i, soft) for i, soft in enumerate(_KINDS)]


def run(engine: Any) -> list[dict[str, Any]]:
    """The outputs of all requests, side by side."""
    outputs: list[dict[str, Any]] = engine.generate(input_ids=PROMPTS, sampling_params=SAMPLINGS)
    return outputs


def check_same(outputs: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Fail unless two runs gave the same."""
    for output, other in zip(outputs, expected, strict=True):
        assert output["output_ids"] == other["output_ids"]
        got, want = (o["meta_info"].get("soft_thinking") for o in (output, other))
        if want is None:
            assert got is None
            continue
        assert (got["steps"], got["end"]) == (want["steps"], want["end"])
        assert close(got["concepts"], want["concepts"])
