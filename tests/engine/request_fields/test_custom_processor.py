"""Custom logit processors, with their own ``custom_params``, in soft and discrete requests."""

import pytest
import torch
from logit_processors import SPOILED, PromptBias, ThinkingBudget
from oracle import Request
from soft_requests import COLD, PLAIN, greedy, one_token
from tiny_models import THINK, THINK_END


def prompt_bias(request: Request, amount: float):
    """What ``PromptBias`` does."""

    def process(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
        logits = logits.clone()
        logits[request.prompt[0]] += amount
        return logits

    return process


def test_every_request_has_its_own_parameters(engine, oracle):
    """In one batch: soft and discrete, with a processor and without."""
    other = Request(PLAIN.prompt[::-1], PLAIN.steps, temperature=0.7, max_topk=3)
    soft = [(PLAIN, 2.0), (COLD, 0.5), (other, 1.0)]
    samplings = [r.sampling_params(custom_params={"amount": a}) for r, a in soft]
    samplings += [greedy(r, custom_params={"amount": a}) for r, a in soft]
    requests = [r for r, _ in soft] * 2
    serialised = PromptBias.to_str()
    outputs = engine.generate(
        input_ids=[r.prompt for r in requests] + [PLAIN.prompt, PLAIN.prompt],
        sampling_params=[*samplings, PLAIN.sampling_params(), greedy(PLAIN)],
        custom_logit_processor=[serialised] * len(requests) + [None, None],
    )
    for (request, amount), output in zip(soft, outputs, strict=False):
        expected = oracle.think(request, prompt_bias(request, amount))
        assert SPOILED not in expected.ids
        expected.check(output)
    for (request, amount), output in zip(soft, outputs[len(soft) :], strict=False):
        bias = prompt_bias(request, amount)
        decoded = oracle.think(Request(request.prompt, request.steps, max_topk=1), bias)
        assert output["output_ids"] == decoded.ids
    oracle.think(PLAIN).check(outputs[-2])
    assert outputs[-1]["output_ids"] == oracle.greedy(PLAIN.prompt, PLAIN.steps)


def test_parameters_may_stand_beside_soft_thinking(engine, oracle):
    """Both in ``custom_params``, as the OpenAI routes send them."""
    sampling = PLAIN.sampling_params()
    sampling["custom_params"] = {"amount": 2.0, "soft_thinking": sampling.pop("soft_thinking")}
    output = engine.generate(
        input_ids=PLAIN.prompt,
        sampling_params=sampling,
        custom_logit_processor=PromptBias.to_str(),
    )
    oracle.think(PLAIN, prompt_bias(PLAIN, 2.0)).check(output)


@pytest.mark.parametrize("soft", [True, False], ids=["soft", "discrete"])
def test_a_processor_is_told_when_its_parameters_are_missing(engine, soft):
    """The processor of these tests notices: what the others show is not for nothing."""
    fields = {"custom_params": {"amount": 1.0, "more": 1}}
    output = engine.generate(
        input_ids=PLAIN.prompt,
        sampling_params=PLAIN.sampling_params(**fields) if soft else greedy(PLAIN, **fields),
        custom_logit_processor=PromptBias.to_str(),
    )
    assert set(output["output_ids"]) == {SPOILED}


def test_a_thinking_budget_ends_soft_thinking(engine, oracle):
    """SGLang's processor sees the tokens that the scheduler knows: under overlap all but the last.

    So a newline and the end of thinking come twice each, in a discrete request as in a soft one.
    """
    newline, budget = ThinkingBudget.NEW_LINE_TOKEN_ID, 12
    request = Request([THINK, *PLAIN.prompt], PLAIN.steps, temperature=0.7, max_topk=4)

    def process(logits: torch.Tensor, ids: list[int]) -> torch.Tensor:
        known = ids[:-1]
        if THINK_END in known or len(PLAIN.prompt) + len(known) < budget:
            return logits
        only = THINK_END if known[-1:] == [newline] else newline
        return torch.full_like(logits, -torch.inf).index_fill(0, torch.tensor([only]), 0.0)

    fields = {"custom_params": {"thinking_budget": budget}}
    serialised = ThinkingBudget.to_str()
    output, single, discrete = (
        engine.generate(
            input_ids=request.prompt, sampling_params=sampling, custom_logit_processor=serialised
        )
        for sampling in (
            request.sampling_params(**fields),
            one_token(request).sampling_params(**fields),
            greedy(request, **fields),
        )
    )
    expected = oracle.think(request, process)
    expected.check(output)
    assert expected.end == "think_end"
    assert expected.ids[len(expected.concepts) - 3 :][:4] == [
        newline,
        newline,
        THINK_END,
        THINK_END,
    ]
    assert single["output_ids"] == discrete["output_ids"]
