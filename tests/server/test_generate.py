"""SGLang's own route, ``/generate``."""

import pytest
from asking import COLD, MAX_TOKENS, PROMPT, THINK_END, TRACED, WIDE, check_answer, same_trace
from streaming import Streamed, events

OTHER_PROMPT = "<|user|>What is 17+25?<|assistant|><think>"


def _sampling(**own):
    return {**WIDE, "max_new_tokens": MAX_TOKENS, **own}


def _generate(http, sampling, text=PROMPT, **own):
    response = http.post("/generate", json={"text": text, "sampling_params": sampling, **own})
    assert response.status_code == 200, response.text
    return response.json()


def _stream(http, sampling, text=PROMPT):
    request = {"text": text, "sampling_params": sampling, "stream": True}
    with http.stream("POST", "/generate", json=request) as response:
        yield from events(response.iter_lines())


def _answer(output):
    return output["meta_info"].get("soft_thinking")


@pytest.fixture(scope="module")
def traced(http):
    return _generate(http, _sampling(soft_thinking=TRACED))


def test_discrete_request_has_no_answer(http):
    output = _generate(http, _sampling(temperature=0))
    assert _answer(output) is None
    assert THINK_END in output["text"]


def test_answer_is_in_the_meta_info(traced, token_id):
    answer = _answer(traced)
    check_answer(answer, end="think_end")
    heaviest = [concept[0][0] for concept in answer["concepts"]]
    assert heaviest == traced["output_ids"][: answer["steps"]]
    assert heaviest[-1] == token_id(THINK_END)


def test_flat_names_beside_the_temperature(http, traced):
    output = _generate(http, _sampling(soft_thinking=True, **TRACED))
    assert output["output_ids"] == traced["output_ids"]
    assert same_trace(_answer(output), _answer(traced))


def test_flat_and_nested_names_add_up(http):
    flat = {"early_stopping_length_threshold": 5, "max_topk": 3}
    nested = {**TRACED, "early_stopping_entropy_threshold": 100, "max_topk": 3}
    answer = _answer(_generate(http, _sampling(soft_thinking=nested, **flat)))
    check_answer(answer, end="cold_stop", width=3)
    assert answer["steps"] == 5


def test_flat_names_alone_do_not_switch_it_on(http):
    output = _generate(http, _sampling(max_topk=3, noise="gumbel", temperature=0))
    assert _answer(output) is None
    assert output["output_ids"] == _generate(http, _sampling(temperature=0))["output_ids"]


def test_batch_of_different_parameters(http, traced):
    samplings = [
        _sampling(soft_thinking=TRACED),
        _sampling(temperature=0),
        _sampling(soft_thinking=COLD),
        _sampling(soft_thinking={**TRACED, "max_topk": 1, "noise": "none"}),
    ]
    texts = [PROMPT, PROMPT, OTHER_PROMPT, PROMPT]
    alone = [_generate(http, s, text) for s, text in zip(samplings, texts, strict=True)]
    together = _generate(http, samplings, texts)
    for output, expected in zip(together, alone, strict=True):
        assert output["output_ids"] == expected["output_ids"]
    assert _answer(together[1]) is None
    for i in (0, 2, 3):
        assert same_trace(_answer(together[i]), _answer(alone[i]))
    assert [_answer(together[i])["end"] for i in (0, 2, 3)] == [
        "think_end",
        "cold_stop",
        "think_end",
    ]
    assert together[3]["output_ids"] == together[1]["output_ids"]  # one token: greedy


def test_stream(http, traced):
    streamed = Streamed()
    for event in _stream(http, _sampling(soft_thinking=TRACED)):
        last = event
        if _answer(event) is not None:
            streamed.answers.append(_answer(event))
    assert same_trace(streamed.joined(), _answer(traced))
    assert set(_answer(last)) >= {"steps", "end", "mean_entropy"}
    assert last["text"] == traced["text"]
    assert len(streamed.answers) > 1


def test_stream_of_a_batch(http):
    samplings = [_sampling(soft_thinking=TRACED), _sampling(soft_thinking=COLD), _sampling()]
    samplings[2]["temperature"] = 0
    texts = [PROMPT, OTHER_PROMPT, PROMPT]
    whole = _generate(http, samplings, texts)
    streamed = [Streamed() for _ in samplings]
    for event in _stream(http, samplings, texts):
        if _answer(event) is not None:
            streamed[event["index"]].answers.append(_answer(event))
    assert streamed[2].answers == []
    for part, output in zip(streamed[:2], whole[:2], strict=True):
        assert same_trace(part.joined(), _answer(output))


def test_samples(http):
    sampling = _sampling(soft_thinking={**TRACED, "noise": "dirichlet"}, n=2, sampling_seed=4)
    first, again = _generate(http, sampling), _generate(http, sampling)
    assert not same_trace(_answer(first[0]), _answer(first[1]))
    for output, expected in zip(again, first, strict=True):
        assert same_trace(_answer(output), _answer(expected))


def test_abort_while_thinking(http, token_id):
    never = {str(token_id(THINK_END)): -100}
    sampling = _sampling(
        soft_thinking=TRACED, max_new_tokens=1500, ignore_eos=True, logit_bias=never
    )
    answers = []
    for event in _stream(http, sampling):
        if not answers:
            request = {"rid": event["meta_info"]["id"]}
            assert http.post("/abort_request", json=request).status_code == 200
        answers.append(_answer(event))
    assert answers[-1]["end"] == "abort"
    assert answers[-1]["steps"] < 1500


def test_no_new_tokens(http):
    assert _answer(_generate(http, _sampling(soft_thinking=True, max_new_tokens=0)))["steps"] == 0
