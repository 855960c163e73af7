"""A server that a script starts for itself and ends afterwards."""

import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

STOPPED_WITHIN = 60
"""Seconds."""
_PR_SET_PDEATHSIG = 1


@contextmanager
def launched(flags: Sequence[str], log: Path, ready_within: float) -> Iterator[str]:
    """URL of ``python -m soft_sglang.launch_server`` with these flags, once it generates.

    Args:
        flags: of the server, without host and port.
        log: file for what it prints.
        ready_within: seconds.

    Raises:
        SystemExit: it ended, or was not ready in time; with the end of its log.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    environment = dict(os.environ)
    environment.pop("SGLANG_USE_CPU_ENGINE", None)  # the server chooses by itself
    command = [sys.executable, "-m", "soft_sglang.launch_server", "--port", str(port), *flags]
    with log.open("w") as output, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,  # not the repository's root: its ./kernels would hide a package
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        try:
            _wait_until_ready(process, url, log, ready_within)
            yield url
            if process.poll() is not None:
                raise SystemExit(f"the server ended with {process.returncode}:\n{_tail(log)}")
        except OSError as error:
            raise SystemExit(f"the server did not answer ({error}):\n{_tail(log)}") from error
        finally:
            _stop(process)


def decode_steps_in_graphs(log: Path) -> dict[str, int]:
    """How many of the decode steps that a server logged ran in a graph: yes and no."""
    found = re.findall(r"Decode batch.* graph: (True|False)", log.read_text(errors="replace"))
    count = Counter(found)
    return {"yes": count["True"], "no": count["False"]}


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", url: str, log: Path, within: float
) -> None:
    deadline = time.monotonic() + within
    while not _generates(url):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}:\n{_tail(log)}")
        if time.monotonic() > deadline:
            raise SystemExit(f"the server was not ready after {within:.0f} s:\n{_tail(log)}")
        time.sleep(0.5)


def _generates(url: str) -> bool:
    request = urllib.request.Request(f"{url}/health_generate")
    if key := os.environ.get("OPENAI_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(STOPPED_WITHIN)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it left behind


def _end_with_parent() -> None:
    """Let the kernel end this process with its parent, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
