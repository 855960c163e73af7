"""One server as an operator would run it: metrics, an API key, request logs, a small pool."""

import pytest
from server_process import Server

KEY = "sk-3f9c-soft"


@pytest.fixture(scope="package")
def server(tmp_path_factory):
    """The server of this folder's tests."""
    server = Server(
        tmp_path_factory.mktemp("operated"),
        *("--api-key", KEY, "--enable-metrics"),
        *("--log-requests", "--log-requests-level", "3"),
        *("--max-running-requests", "24", "--max-total-tokens", "4096"),
        api_key=KEY,
    )
    try:
        server.wait_until_ready()
        yield server
        assert server.alive, "the server did not live to the end of the tests"
    finally:
        stopped = server.stop()
    assert stopped, "the server still waited for a request"


@pytest.fixture(scope="package")
def client(server):
    """The real OpenAI client, at the server."""
    with server.openai() as client:
        yield client


@pytest.fixture(scope="package")
def http(server):
    """A plain client, with the key."""
    with server.http() as http:
        yield http
