"""A request's result does not depend on who else is in the batch (invariant 3)."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schedule import Company, Visit
from traces import close

BATCH = 32
PROMPTS = [[20 + i, 30, 40] * 3 for i in range(5)] + [[7], [100 + i for i in range(60)]]
_SOFT = {"return_concepts": True, "after_thinking_temperature": 0}
_LONG = {**_SOFT, "early_stopping_entropy_threshold": 0}
_COLD = {**_SOFT, "early_stopping_entropy_threshold": 6.0}
_KINDS: list[dict[str, Any] | None] = [
    None,
    {**_LONG, "max_topk": 3},
    {**_LONG, "max_topk": 32, "noise": "gumbel", "gumbel_softmax_temperature": 1.0},
    {**_COLD, "early_stopping_length_threshold": 9},
    {**_COLD, "early_stopping_length_threshold": 15, "noise": "gumbel"},
    {**_LONG, "noise": "dirichlet", "dirichlet_alpha": 200.0},
    None,
]


def _sampling(number: int) -> dict[str, Any]:
    """Every prompt with every kind, and varied filters and lengths."""
    soft = _KINDS[number % len(_KINDS)]
    sampling: dict[str, Any] = {
        "max_new_tokens": 4 + 6 * (number % 5),  # short: a random model magnifies rounding
        "ignore_eos": True,
        "sampling_seed": number,
        "temperature": 0.7 + 0.1 * (number % 4),
        "top_p": (1.0, 0.95, 0.8)[number % 3],
        "top_k": (-1, 30)[number % 2],
        "min_p": (0.0, 0.01)[number % 2],
    }
    if soft is None:
        return {**sampling, "temperature": 0}
    if "dirichlet_alpha" in soft:
        # a Gamma variate of a concentration far below 1 magnifies rounding, step by step
        sampling["top_k"] = 8
    return {**sampling, "soft_thinking": soft}


NUMBERS = range(35)
COMPANY_PROMPTS = [PROMPTS[(number // 5) % len(PROMPTS)] for number in NUMBERS]
SAMPLINGS = [_sampling(number) for number in NUMBERS]

VISITS = st.lists(
    st.builds(
        Visit,
        kind=st.sampled_from(NUMBERS),
        arrival=st.integers(0, 120),
        leaves_after=st.none() | st.none() | st.integers(1, 30),
    ),
    min_size=12,
    max_size=BATCH,
)


@pytest.fixture(scope="module")
def alone(house, tiny_model):
    """Each request by itself."""
    engine = house.get(tiny_model("llama"), max_running_requests=BATCH)
    outputs = [
        engine.generate(input_ids=prompt, sampling_params=sampling)
        for prompt, sampling in zip(COMPANY_PROMPTS, SAMPLINGS, strict=True)
    ]
    ends = {o["meta_info"].get("soft_thinking", {}).get("end") for o in outputs}
    assert ends == {None, "length", "cold_stop", "think_end"}
    return outputs


@pytest.mark.parametrize("schedules", [25, pytest.param(300, marks=pytest.mark.slow)])
def test_company_changes_nothing(schedules, alone, house, tiny_model):
    engine = house.get(tiny_model("llama"), max_running_requests=BATCH)
    company = Company(engine, COMPANY_PROMPTS, SAMPLINGS)
    finished = left = 0

    @settings(
        max_examples=schedules,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # a failure names its visit; shrinking would take many minutes
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(visits=VISITS)
    def check(visits: list[Visit]) -> None:
        nonlocal finished, left
        for visit, output in zip(visits, company.run(visits), strict=True):
            expected = alone[visit.kind]
            aborted = output["meta_info"]["finish_reason"]["type"] == "abort"
            finished, left = finished + (not aborted), left + aborted
            told = len(output["concepts"])
            ids = output["output_ids"]
            if not aborted:
                assert len(ids) == len(expected["output_ids"])
            assert ids == expected["output_ids"][: len(ids)], visit
            want = expected["meta_info"].get("soft_thinking")
            if want is None:
                assert told == 0
            else:
                assert told == min(len(ids), len(want["concepts"]))
                assert close(output["concepts"], want["concepts"][:told]), visit

    check()
    assert min(finished, left) > schedules
    assert company.most_together > BATCH // 2, "the requests did not meet"
