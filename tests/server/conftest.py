"""One running server on the bundled model for the tests of this folder."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import pytest

READY_WITHIN = 300
"""Seconds. An idle machine needs a tenth of it."""
STOPPED_WITHIN = 60
"""Seconds."""
LOG = pytest.StashKey[Path]()
_PR_SET_PDEATHSIG = 1


class Server:
    """``python -m soft_sglang.launch_server`` in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        environment = dict(os.environ)
        environment.pop("SGLANG_USE_CPU_ENGINE", None)  # the server chooses by itself
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "soft_sglang.launch_server", "--port", str(port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # not the repository's root: its ./kernels would hide a package of that name
                cwd=folder,
                start_new_session=True,
                preexec_fn=_end_with_pytest,
            )

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def is_healthy(self) -> bool:
        """Whether the server generates a token."""
        try:
            return httpx.get(f"{self.url}/health_generate", timeout=60).status_code == 200
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> None:
        """Return when the server generates; fail if it dies or takes too long."""
        deadline = time.monotonic() + READY_WITHIN
        while not self.is_healthy():
            assert self.alive, f"the server ended with {self._process.returncode}"
            assert time.monotonic() < deadline, f"the server is not ready after {READY_WITHIN} s"
            time.sleep(0.5)

    def stop(self) -> None:
        """End the whole process group."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, sign)
                self._process.wait(STOPPED_WITHIN)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _end_with_pytest() -> None:
    """Let the kernel end this process when pytest is killed, which runs no teardown."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def server(tmp_path_factory, pytestconfig):
    """The server of this folder's tests."""
    server = Server(tmp_path_factory.mktemp("server"))
    pytestconfig.stash[LOG] = server.log
    try:
        server.wait_until_ready()
        yield server
        assert server.alive, "the server did not live to the end of the tests"
    finally:
        server.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Show the end of the server's log with a failure."""
    report = yield
    log = item.config.stash.get(LOG, None)
    if report.failed and log is not None:
        report.sections.append(("server log", log.read_text(errors="replace")[-6000:]))
    return report


@pytest.fixture(scope="session")
def client(server):
    """The real OpenAI client, at the server."""
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", timeout=600, max_retries=0
    ) as client:
        yield client


@pytest.fixture(scope="session")
def http(server):
    """A plain client, for SGLang's own routes."""
    with httpx.Client(base_url=server.url, timeout=600) as http:
        yield http


@pytest.fixture(scope="session")
def token_id(http):
    """Id of a text that is one token."""

    def look_up(text: str) -> int:
        request = {"prompt": text, "add_special_tokens": False}
        (token,) = http.post("/tokenize", json=request).json()["tokens"]
        return token

    return look_up
