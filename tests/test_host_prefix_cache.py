"""HiCache: the prompt of a soft request is copied to the host, and what it thought never is."""

import pytest
from cache_hooks import after_prefill, matching_prompts_only, release
from host_cache import host_cache

PROMPT = list(range(40))
OUTPUT = list(range(1000, 1024))
MORE = [5, 6]


@pytest.fixture(params=["write_through", "write_back"])
def cache(request):
    with matching_prompts_only(), host_cache(request.param) as cache:
        yield cache


def _run(cache, soft, output=OUTPUT):
    """A request from its arrival to its end; the places of its prompt and of its output."""
    req = cache.request(PROMPT, soft)
    cache.prefill(req)
    after_prefill(cache, req)
    prompt = cache.place(req, 0, len(PROMPT))
    cache.decode(req, output)
    thought = cache.place(req, len(PROMPT), len(PROMPT) + len(output))
    release(cache, req)
    return prompt, thought


def test_only_the_prompt_of_a_soft_request_is_copied(cache):
    prompt, _ = _run(cache, soft=True)
    cache.evict()
    assert sorted(cache.copied) == sorted(prompt)
    assert cache.found_on_host(cache.request(PROMPT + OUTPUT + MORE, soft=False)) == len(PROMPT)
    assert cache.found_on_host(cache.request(PROMPT + MORE, soft=True)) == len(PROMPT)


def test_a_discrete_request_is_copied_whole(cache):
    prompt, output = _run(cache, soft=False)
    cache.evict()
    assert sorted(cache.copied) == sorted(prompt + output)
    whole = len(PROMPT + OUTPUT)
    assert cache.found_on_host(cache.request(PROMPT + OUTPUT + MORE, soft=False)) == whole


def test_a_resumed_request_finds_no_more_than_its_prompt_on_the_host(cache):
    """The same ids lie there as somebody emitted and fed them."""
    _run(cache, soft=False)
    cache.evict()
    req = cache.request(PROMPT, soft=True)
    req.output_ids.extend(OUTPUT)
    assert cache.found_on_host(req) == len(PROMPT)


def test_a_resumed_request_copies_no_more_than_its_prompt(cache):
    req = cache.request(PROMPT, soft=True)
    req.output_ids.extend(OUTPUT)
    cache.prefill(req)
    after_prefill(cache, req)
    cache.decode(req, [*range(2000, 2010)])
    prompt = cache.place(req, 0, len(PROMPT))
    release(cache, req)
    cache.evict()
    assert set(cache.copied) <= set(prompt)


def test_the_storage_behind_is_asked_for_no_more_than_the_prompt(cache):
    req = cache.request(PROMPT, soft=True)
    cache.look_up(req)
    req.output_ids.extend(OUTPUT)
    cache.look_up(req)
    discrete = cache.request(PROMPT, soft=False)
    discrete.output_ids.extend(OUTPUT)
    cache.look_up(discrete)
    # the last token is always computed, for its logits
    assert cache.looked_up == [PROMPT[:-1], PROMPT, [*PROMPT, *OUTPUT[:-1]]]
