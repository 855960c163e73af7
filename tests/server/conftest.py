"""One running server for the tests of this folder."""

import pytest
from server_process import Server, free_port


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The server of this folder's tests."""
    grpc_port = free_port()
    server = Server(tmp_path_factory.mktemp("server"), "--grpc-port", str(grpc_port))
    server.grpc_port = grpc_port
    with server.running():
        yield server


@pytest.fixture(scope="session")
def client(server):
    """The real OpenAI client, at the server."""
    with server.openai() as client:
        yield client


@pytest.fixture(scope="session")
def http(server):
    """A plain client, for SGLang's own routes."""
    with server.http() as http:
        yield http


@pytest.fixture(scope="session")
def token_id(http):
    """Id of a text that is one token."""

    def look_up(text: str) -> int:
        request = {"prompt": text, "add_special_tokens": False}
        (token,) = http.post("/tokenize", json=request).json()["tokens"]
        return token

    return look_up
