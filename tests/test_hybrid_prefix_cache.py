"""Models with Mamba states: no state that has seen thoughts enters SGLang's prefix cache."""

import pytest
from cache_hooks import after_prefill, release
from hybrid_cache import GRID, Match, hybrid_cache

from soft_sglang.patches.versions import insert_into_tree

PROMPT = list(range(2 * GRID))
OUTPUT = list(range(1000, 1172))
TOTAL = len(PROMPT) + len(OUTPUT)
MORE = [7, 8, 9]
NOTHING = Match(0, None)


@pytest.fixture(params=[True, False], ids=["extra buffer", "no buffer"])
def cache(request):
    with hybrid_cache(request.param) as cache:
        yield cache


def _finished(cache, soft):
    """A request at its end, whose prompt is not in the tree."""
    req = cache.request(PROMPT, soft)
    cache.prefill(req)
    cache.decode(req, OUTPUT)
    return req


def test_a_finished_discrete_request_is_shared(cache):
    before = cache.free
    release(cache, _finished(cache, soft=False))
    kept = TOTAL // GRID * GRID if cache.extra_buffer else TOTAL
    assert cache.match(PROMPT + OUTPUT + MORE) == Match(kept, kept)
    cache.evict()
    assert cache.free == before


def test_a_finished_soft_request_leaves_nothing(cache):
    before = cache.free
    release(cache, _finished(cache, soft=True))
    for follow_up in (PROMPT + MORE, PROMPT + OUTPUT + MORE):
        assert cache.match(follow_up) == NOTHING
    assert cache.free == before


def test_the_prompt_is_shared_from_the_prefill(cache):
    before = cache.free
    req = cache.request(PROMPT, soft=True)
    cache.prefill(req)
    after_prefill(cache, req)
    shared = Match(len(PROMPT), len(PROMPT))
    assert cache.match(PROMPT + MORE) == shared
    cache.decode(req, OUTPUT)
    release(cache, req)
    for follow_up in (PROMPT + MORE, PROMPT + OUTPUT + MORE):
        assert cache.match(follow_up) == shared
    cache.evict()
    assert cache.free == before


def test_a_resumed_request_leaves_nothing(cache):
    before = cache.free
    req = cache.request(PROMPT, soft=True)
    req.output_ids.extend(OUTPUT)
    cache.prefill(req)
    after_prefill(cache, req)
    assert cache.match(PROMPT + OUTPUT + MORE) == NOTHING
    cache.decode(req, MORE)
    release(cache, req)
    assert cache.match(PROMPT + OUTPUT + MORE) == NOTHING
    assert cache.free == before


def test_a_prompt_inserted_at_the_end_would_bring_a_later_state():
    """Why a finished soft request inserts nothing here."""
    with hybrid_cache(extra_buffer=False) as cache:
        req = _finished(cache, soft=True)
        insert_into_tree(cache.tree, req, up_to=len(PROMPT))
        assert cache.match(PROMPT + MORE) == Match(len(PROMPT), TOTAL)
