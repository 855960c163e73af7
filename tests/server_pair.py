"""Two servers on two cores, one that prefills and one that decodes, behind SGLang's gateway."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from gateway_process import Gateway
from plugins.installation import install
from server_process import Server, free_port

_DECODE = ("--disaggregation-decode-retraction-backup", "cpu_tensor")
"""Where retracted key-value pairs wait: a pool of pinned memory is for GPUs."""
_TRANSPORTS = "tcp,self,sm,posix,sysv,cma"
"""Of UCX, which NIXL transfers with; those for GPUs and networks are left out."""


class ServerPair:
    """Two servers that share their requests, and the gateway before them."""

    def __init__(
        self,
        folder: Path,
        *flags: str,
        prefill: tuple[str, ...] = (),
        decode: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """Start the servers; they are not ready yet, and the gateway waits for them.

        Args:
            folder: an empty one.
            flags: of both servers.
            prefill: further flags of the one that prefills.
            decode: of the one that decodes.
            environment: of the one that decodes.
        """
        self._folder = folder
        self._stack = ExitStack()
        self.bootstrap_port = free_port()
        port = ("--disaggregation-bootstrap-port", str(self.bootstrap_port))
        self.prefill = self._start("prefill", "0", {}, *port, *flags, *prefill)
        self.decode = self._start("decode", "1", environment or {}, *_DECODE, *flags, *decode)

    def _start(self, role: str, core: str, environment: dict[str, str], *flags: str) -> Server:
        home = self._folder / role
        home.mkdir()
        settings = {
            "SGLANG_CPU_OMP_THREADS_BIND": core,
            "UCX_TLS": _TRANSPORTS,
            "PYTHONPATH": os.pathsep.join(install("pair_on_cpu", home / "plugin")),
            **environment,
        }
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            mode = ("--disaggregation-mode", role, "--disaggregation-transfer-backend", "nixl")
            server = Server(home, *mode, *flags)
        self._stack.callback(server.stop)
        return server

    def wait_until_ready(self) -> None:
        """Return when both servers answer, and the gateway does."""
        for server in (self.prefill, self.decode):
            server.wait_until_ready()
        home = self._folder / "gateway"
        home.mkdir()
        pair = ("--prefill", self.prefill.url, str(self.bootstrap_port))
        decode = ("--decode", self.decode.url)
        self.gateway = Gateway(home, "--pd-disaggregation", *pair, *decode)
        self._stack.callback(self.gateway.stop)
        self.gateway.wait_until_ready()

    def stop(self) -> None:
        """End all of them."""
        self._stack.close()
