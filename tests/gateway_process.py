"""A running gateway, SGLang's own, in front of servers."""

import sys
from pathlib import Path

from server_process import Server, free_port

_LAUNCH = """
from soft_sglang.cpu.environment import prepare
prepare()  # the gateway imports SGLang where it is installed
from sglang_router.launch_router import main
main()
"""


class Gateway(Server):
    """``python -m sglang_router.launch_router``; it answers when its workers do."""

    def __init__(self, folder: Path, *flags: str) -> None:
        """Start a gateway; ``flags`` name its workers."""
        flags = (*flags, "--host", "127.0.0.1", "--prometheus-port", str(free_port()))
        super().__init__(folder, *flags, launch=[sys.executable, "-c", _LAUNCH])
