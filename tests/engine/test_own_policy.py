"""The documentation's example of a policy of one's own, in a running engine."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "sharpened_thinking.py"
PROMPT = [17, 42, 99, 5, 64]


@pytest.fixture
def engine(house, tiny_model, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))  # children get the path of their parent
    return house.get(
        tiny_model("llama"), {"SOFT_SGLANG_POLICIES": EXAMPLE.stem}, max_total_tokens=4096
    )


def _concepts(engine, *softs):
    outputs = engine.generate(
        input_ids=[PROMPT] * len(softs),
        sampling_params=[
            {
                "temperature": 0.8,
                "top_k": 20,
                "max_new_tokens": 12,
                "ignore_eos": True,
                "soft_thinking": {"max_topk": 6, "return_concepts": True, **soft},
            }
            for soft in softs
        ],
    )
    return [output["meta_info"]["soft_thinking"]["concepts"] for output in outputs]


def test_the_example(engine):
    """Sharpness 1 is soft thinking; 3 is its weights to the third power."""
    mine = {"policy": "sharpened_thinking"}
    softs = [{}, *({**mine, "sharpness": sharpness} for sharpness in (1, 3, 100))]
    plain, same, sharp, alone = _concepts(engine, *softs)
    assert [dict(c) for c in same] == [pytest.approx(dict(c), abs=1e-5) for c in plain]
    total = sum(weight**3 for _, weight in plain[0])
    assert dict(sharp[0]) == pytest.approx({i: w**3 / total for i, w in plain[0]}, abs=1e-5)
    assert len(sharp[0]) == 6
    assert sharp[1] != plain[1]
    heaviest = plain[0][0][1]
    total = sum((weight / heaviest) ** 100 for _, weight in plain[0])
    assert heaviest**100 < 2**-149  # below float32
    assert alone[0][0][1] == pytest.approx(1 / total, abs=1e-3)


def test_its_parameter_is_validated(engine):
    with pytest.raises(
        ValueError, match=r"soft_thinking\.sharpness must be a number from 0 to 100"
    ):
        _concepts(engine, {"policy": "sharpened_thinking", "sharpness": -1})
    with pytest.raises(ValueError, match="sharpness belongs to the policy 'sharpened_thinking'"):
        _concepts(engine, {"sharpness": 2})


def test_the_documentation_shows_it():
    shown = (ROOT / "docs" / "policies.md").read_text()
    assert EXAMPLE.read_text() in shown


def test_a_policy_that_only_this_process_knows(engine):
    """Registered too late for the scheduler: refused, and the engine lives on."""
    from soft_sglang.policies.discrete import Discrete
    from soft_sglang.policies.registry import _registered, register

    class Late(Discrete):
        name = "late"

    register(Late())
    try:
        with pytest.raises(ValueError, match=r"'late' is not known .* SOFT_SGLANG_POLICIES"):
            _concepts(engine, {"policy": "late"})
        assert _concepts(engine, {"policy": "discrete"})
    finally:
        del _registered["late"]
