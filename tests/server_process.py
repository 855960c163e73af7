"""A running server on the bundled model, as its users start it."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

import httpx
import openai

READY_WITHIN = 300
"""Seconds. An idle machine needs a tenth of it."""
STOPPED_WITHIN = 60
"""Seconds."""
MODULE = ("-m", "soft_sglang.launch_server")
LAUNCH = (sys.executable, *MODULE)
_PR_SET_PDEATHSIG = 1


class Server:
    """``python -m soft_sglang.launch_server`` in a process group of its own."""

    logs: ClassVar[list[Path]] = []
    """Of the servers that were started, the last one last."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        api_key: str = "none",
        launch: Sequence[Path | str] = LAUNCH,
    ) -> None:
        """Start a server on the bundled model; it is not ready yet.

        ``launch``: the command, without its flags.
        """
        port = free_port()
        self.api_key = api_key
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        self.logs.append(self.log)
        environment = dict(os.environ)
        environment.pop("SGLANG_USE_CPU_ENGINE", None)  # the server chooses by itself
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [*launch, "--port", str(port), *flags],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # not the repository's root: its ./kernels would hide a package of that name
                cwd=folder,
                start_new_session=True,
                preexec_fn=_end_with_pytest,
            )

    def openai(self) -> openai.OpenAI:
        """The real OpenAI client, at this server."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=self.api_key, timeout=600, max_retries=0
        )

    def http(self) -> httpx.Client:
        """A plain client, for SGLang's own routes."""
        return httpx.Client(base_url=self.url, headers=self._headers(), timeout=600)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}

    @property
    def pid(self) -> int:
        """Of the parent process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def is_healthy(self) -> bool:
        """Whether the server generates a token."""
        try:
            answer = httpx.get(f"{self.url}/health_generate", headers=self._headers(), timeout=60)
            return answer.status_code == 200
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> None:
        """Return when the server generates; fail if it dies or takes too long."""
        deadline = time.monotonic() + READY_WITHIN
        while not self.is_healthy():
            assert self.alive, f"the server ended with {self._process.returncode}"
            assert time.monotonic() < deadline, f"the server is not ready after {READY_WITHIN} s"
            time.sleep(0.5)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Wait until it is ready; at the end check that it lives, and stop it."""
        try:
            self.wait_until_ready()
            yield self
            assert self.alive, f"the server did not live to the end: {self.log}"
        finally:
            self.stop()

    def stop(self) -> bool:
        """End the whole process group.

        Returns:
            Whether it ended when asked to: SGLang waits for requests that it has not answered.
        """
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, sign)
                self._process.wait(STOPPED_WITHIN)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
            return sign is signal.SIGTERM
        return False


def _end_with_pytest() -> None:
    """Let the kernel end this process when pytest is killed, which runs no teardown."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
