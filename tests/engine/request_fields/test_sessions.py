"""Sessions: soft requests go on from soft and discrete ones, and find nothing of concepts."""

from dataclasses import replace

import pytest
from soft_requests import COLD, PLAIN, greedy

MORE = [5, 6]
SOFT = {"start": "thinking"}
"""A request that goes on says where it begins."""


@pytest.fixture
def session(engine):
    engine.flush_cache()  # other tests ask with the same prompts
    session = engine.open_session(1000)
    yield session
    engine.close_session(session)


def _soft(request):
    sampling = request.sampling_params()
    return {**sampling, "soft_thinking": {**sampling["soft_thinking"], **SOFT}}


def _ask(engine, session, prompt, sampling, after=None, **how):
    rid = None if after is None else after["meta_info"]["id"]
    params = {"id": session, "rid": rid, **how}
    return engine.generate(input_ids=prompt, sampling_params=sampling, session_params=params)


def test_every_turn_is_computed_from_the_ids_of_those_before(engine, oracle, session):
    first = _ask(engine, session, PLAIN.prompt, PLAIN.sampling_params())
    oracle.think(PLAIN).check(first)

    whole = [*PLAIN.prompt, *first["output_ids"], *MORE]
    second = _ask(engine, session, MORE, _soft(COLD), after=first)
    oracle.think(replace(COLD, prompt=whole)).check(second)
    assert second["meta_info"]["prompt_tokens"] == len(whole)
    assert second["meta_info"]["cached_tokens"] == len(PLAIN.prompt)

    branch = _ask(engine, session, MORE, greedy(PLAIN, soft_thinking=False), after=first)
    assert branch["output_ids"] == oracle.greedy(whole, PLAIN.steps)

    whole = [*whole, *second["output_ids"], *MORE]
    third = _ask(engine, session, MORE, greedy(PLAIN, soft_thinking=False), after=second)
    assert third["output_ids"] == oracle.greedy(whole, PLAIN.steps)
    assert third["meta_info"]["cached_tokens"] <= len(whole) - len(second["output_ids"])

    whole = [*whole, *third["output_ids"], *MORE]
    fourth = _ask(engine, session, MORE, _soft(PLAIN), after=third)
    oracle.think(replace(PLAIN, prompt=whole)).check(fourth)


def test_a_turn_without_the_output_before_it(engine, oracle, session):
    first = _ask(engine, session, PLAIN.prompt, PLAIN.sampling_params())
    second = _ask(engine, session, MORE, _soft(PLAIN), after=first, drop_previous_output=True)
    oracle.think(replace(PLAIN, prompt=[*PLAIN.prompt, *MORE])).check(second)


def test_a_turn_says_whether_it_begins_with_a_thought(engine, session):
    first = _ask(engine, session, PLAIN.prompt, PLAIN.sampling_params())
    with pytest.raises(ValueError, match="start must be 'thinking' or 'answer' in a request that"):
        _ask(engine, session, MORE, PLAIN.sampling_params(), after=first)
    answer = _ask(engine, session, MORE, greedy(PLAIN, soft_thinking={"start": "answer"}), first)
    assert answer["meta_info"]["soft_thinking"]["end"] == "closed"


def test_streaming_sessions_keep_what_they_computed(engine, oracle):
    session = engine.open_session(1000, streaming=True)
    refused = "soft_thinking cannot be combined with a streaming session"
    with pytest.raises(ValueError, match=refused):
        _ask(engine, session, PLAIN.prompt, PLAIN.sampling_params())
    first = _ask(engine, session, PLAIN.prompt, greedy(PLAIN))
    assert first["output_ids"] == oracle.greedy(PLAIN.prompt, PLAIN.steps)
    with pytest.raises(ValueError, match=refused):
        _ask(engine, session, MORE, PLAIN.sampling_params())
    more = _ask(engine, session, MORE, greedy(PLAIN))
    whole = [*PLAIN.prompt, *first["output_ids"], *MORE]
    assert more["output_ids"] == oracle.greedy(whole, PLAIN.steps)
    engine.close_session(session)


def test_an_id_for_routing_is_no_session(engine, oracle):
    output = engine.generate(
        input_ids=PLAIN.prompt, sampling_params=PLAIN.sampling_params(), session_id="any"
    )
    oracle.think(PLAIN).check(output)
