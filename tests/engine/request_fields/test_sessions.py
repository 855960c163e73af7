"""Sessions keep key-value pairs of an answer: soft requests are refused, others go on."""

import pytest
from soft_requests import PLAIN, greedy


def test_soft_requests_in_a_session_are_refused(engine, oracle):
    session = engine.open_session(1000)
    first = engine.generate(
        input_ids=PLAIN.prompt, sampling_params=greedy(PLAIN), session_params={"id": session}
    )
    assert first["output_ids"] == oracle.greedy(PLAIN.prompt, PLAIN.steps)
    for fields in ({"session_params": {"id": session}}, {"session_id": session}):
        with pytest.raises(
            ValueError, match="soft_thinking cannot be combined with session_params"
        ):
            engine.generate(
                input_ids=PLAIN.prompt, sampling_params=PLAIN.sampling_params(), **fields
            )
    more = engine.generate(
        input_ids=[5, 6],
        sampling_params=greedy(PLAIN, soft_thinking=False),
        session_params={"id": session, "rid": first["meta_info"]["id"]},
    )
    whole = [*PLAIN.prompt, *first["output_ids"], 5, 6]
    assert more["output_ids"] == oracle.greedy(whole, PLAIN.steps)
    engine.close_session(session)
