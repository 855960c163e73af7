"""Models with sliding windows: a window that has left the prompt is not handed to the cache."""

import pytest
from cache_hooks import after_prefill, release
from sglang.srt.managers.schedule_batch import FINISH_LENGTH
from window_cache import WINDOW, window_cache

PROMPT = list(range(4 * WINDOW))
OUTPUT = list(range(1000, 1000 + 3 * WINDOW))
MORE = [5, 6]


@pytest.fixture
def cache():
    with window_cache() as cache:
        yield cache


def test_the_prompt_is_shared_from_the_prefill(cache):
    before = cache.free
    req = cache.request(PROMPT, soft=True)
    cache.prefill(req)
    after_prefill(cache, req)
    assert cache.match(PROMPT + MORE) == len(PROMPT)
    cache.decode(req, OUTPUT)
    release(cache, req)
    assert cache.match(PROMPT + OUTPUT + MORE) == cache.match(PROMPT + MORE) == len(PROMPT)
    cache.evict()
    assert cache.free == before


def test_a_discrete_request_is_shared_whole(cache):
    req = cache.request(PROMPT, soft=False)
    cache.prefill(req)
    after_prefill(cache, req)
    cache.decode(req, OUTPUT)
    release(cache, req)
    assert cache.match(PROMPT + OUTPUT + MORE) == len(PROMPT + OUTPUT)


def test_a_request_that_ends_at_its_first_token_leaves_its_prompt(cache):
    req = cache.request(PROMPT, soft=True)
    cache.prefill(req)
    req.finished_reason, req.finished_len = FINISH_LENGTH(0), 0
    release(cache, req)
    assert cache.match(PROMPT + MORE) == len(PROMPT)


def test_a_resumed_request_whose_prompt_was_evicted_ends_well(cache):
    """Its prefill goes past the prompt, and enters nothing; then the window leaves the prompt."""
    before = cache.free
    req = cache.request(PROMPT, soft=True)
    req.output_ids.extend(OUTPUT)
    cache.prefill(req)
    after_prefill(cache, req)
    cache.decode(req, [*range(2000, 2000 + 2 * WINDOW)])
    release(cache, req)
    assert cache.match(PROMPT + OUTPUT + MORE) == 0
    assert cache.free == before


def test_a_prompt_whose_window_was_evicted_ends_well(cache):
    """SGLang may unlock the window after the prefill; 0.5.22 ends on an insertion then."""
    before = cache.free
    req = cache.request(PROMPT, soft=True)
    cache.prefill(req)
    after_prefill(cache, req)
    evicted = cache.evict_windows(req)
    cache.decode(req, OUTPUT)
    release(cache, req)
    assert cache.match(PROMPT + MORE) == (0 if evicted else len(PROMPT))
    cache.evict()
    assert cache.free == before
