"""Who may ask: the API key guards every route, and no log shows it."""

import httpx
import jsonschema
import openai
import pytest
from asking import MODEL, TRACED, complete

INFO = "/soft_thinking_info"


@pytest.mark.parametrize("known", [None, 3, 100], ids=["no key", "a part of it", "more than it"])
def test_nothing_is_answered_without_the_key(server, known):
    key = None if known is None else f"{server.api_key}-and-more"[:known]
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    body = {"model": MODEL, "prompt": "<think>", "max_tokens": 2, "soft_thinking": True}
    with httpx.Client(base_url=server.url, headers=headers) as stranger:
        assert stranger.get(INFO).status_code == 401
        assert stranger.post("/v1/completions", json=body).status_code == 401
        assert stranger.post("/generate", json={"text": "1"}).status_code == 401
    if key is not None:
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            complete(client, TRACED)


def test_the_server_tells_what_may_be_asked(client, http):
    info = http.get(INFO).json()
    assert (info["enabled_by_default"], info["unsupported"]) == (False, None)
    validator = jsonschema.Draft202012Validator(info["schema"])
    validator.check_schema(info["schema"])
    assert validator.is_valid({"max_topk": 32, "noise": "gumbel"})
    assert not validator.is_valid({"max_topk": 33})
    _, parameters = info["schema"]["anyOf"]
    assert parameters["properties"]["early_stopping_entropy_threshold"]["default"] == 0.01
    complete(client, {"max_topk": 32, "noise": "gumbel"}, max_tokens=2)
    with pytest.raises(openai.BadRequestError, match="max_topk"):
        complete(client, {"max_topk": 33}, max_tokens=2)


def test_no_log_shows_the_key(server, client):
    complete(client, TRACED, prompt="<think>log me", max_tokens=2)
    log = server.log.read_text()
    assert "log me" in log, "requests are logged"
    assert "api_key" in log, "arguments are logged"
    assert server.api_key not in log
