"""Two servers on two cores, one that prefills and one that decodes, behind SGLang's gateway."""

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_process import Gateway
from plugins.installation import install
from server_process import LAUNCH, Server, free_port

_PLUGIN = "pair_on_cpu"
_DECODE = ("--disaggregation-decode-retraction-backup", "cpu_tensor")
"""Where retracted key-value pairs wait: a pool of pinned memory is for GPUs."""
_TRANSPORTS = "tcp,self,sm,posix,sysv,cma"
"""Of UCX, which NIXL transfers with; those for GPUs and networks are left out."""
_LAUNCH_STOCK = """
import sys
from soft_sglang.cpu.environment import prepare
on_cpu = prepare()
from soft_sglang.server.arguments import with_defaults
from sglang.launch_server import run_server
from sglang.srt.plugins import load_plugins
load_plugins()
from sglang.srt.server_args import prepare_server_args
run_server(prepare_server_args(with_defaults(sys.argv[1:], on_cpu)))
"""


@dataclass(frozen=True)
class Role:
    """How one of the two servers is started."""

    flags: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    launch: Sequence[Path | str] = LAUNCH


WITHOUT_PLUGIN = Role(
    environment={"SGLANG_PLUGINS": _PLUGIN}, launch=(sys.executable, "-c", _LAUNCH_STOCK)
)
"""Stock SGLang."""


class ServerPair:
    """Two servers that share their requests, and the gateway before them."""

    def __init__(
        self, folder: Path, *flags: str, prefill: Role | None = None, decode: Role | None = None
    ) -> None:
        """Start the servers; they are not ready yet, and the gateway waits for them.

        Args:
            folder: an empty one.
            flags: of both servers.
            prefill: the one that prefills.
            decode: the one that decodes.
        """
        self._folder = folder
        self._stack = ExitStack()
        self.bootstrap_port = free_port()
        port = ("--disaggregation-bootstrap-port", str(self.bootstrap_port))
        self.prefill = self._start("prefill", "0", prefill or Role(), *port, *flags)
        self.decode = self._start("decode", "1", decode or Role(), *_DECODE, *flags)

    def _start(self, mode: str, core: str, role: Role, *flags: str) -> Server:
        home = self._folder / mode
        home.mkdir()
        settings = {
            "SGLANG_CPU_OMP_THREADS_BIND": core,
            "UCX_TLS": _TRANSPORTS,
            "SGLANG_DISAGG_PREFILL_EARLY_SEND_CACHED_PREFIX": "0",  # waits with events of CUDA
            # a busy machine is not a lost server
            "SGLANG_DISAGGREGATION_HEARTBEAT_MAX_FAILURE": "100",
            "PYTHONPATH": os.pathsep.join(install(_PLUGIN, home / "plugin")),
            **role.environment,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            transfer = ("--disaggregation-mode", mode, "--disaggregation-transfer-backend", "nixl")
            server = Server(home, *transfer, *flags, *role.flags, launch=role.launch)
        self._stack.callback(server.stop)
        return server

    def wait_until_ready(self) -> None:
        """Return when both servers answer, and the gateway does."""
        for server in (self.prefill, self.decode):
            server.wait_until_ready()
        home = self._folder / "gateway"
        home.mkdir()
        prefill = ("--prefill", self.prefill.url, str(self.bootstrap_port))
        decode = ("--decode", self.decode.url)
        self.gateway = Gateway(home, "--pd-disaggregation", *prefill, *decode)
        self._stack.callback(self.gateway.stop)
        self.gateway.wait_until_ready()

    def ask(
        self, path: str, body: Mapping[str, Any], prefill_body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """Send a request to both servers, as the gateway does; what the one that decodes answers.

        ``prefill_body``: for the one that prefills, if it shall get another one.
        """
        room = {
            "bootstrap_host": "127.0.0.1",
            "bootstrap_port": self.bootstrap_port,
            "bootstrap_room": secrets.randbits(62),
        }
        other = body if prefill_body is None else prefill_body
        with self.prefill.http() as prefill, self.decode.http() as decode:  # noqa: SIM117
            with ThreadPoolExecutor(1) as client:
                client.submit(prefill.post, path, json={**other, **room})
                return decode.post(path, json={**body, **room})

    def stop(self) -> None:
        """End all of them."""
        self._stack.close()
