"""Shared set-up, before any test module is imported.

SGLang must import on a machine without a GPU, and the kernels must be interpreted there.
"""

import os
import sys
from pathlib import Path

import pytest

from soft_sglang.cpu.environment import prepare

prepare()
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))

from server_process import Server  # noqa: E402
from triton_interpreter import interpreted  # noqa: E402

with interpreted():  # whoever imports Triton first decides for all
    import soft_sglang.kernels.concept_embedding
    import soft_sglang.kernels.thinking_step  # noqa: F401


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a tiny random model, by architecture."""
    import tiny_models

    folders: dict[str, str] = {}

    def folder(architecture: str) -> str:
        if architecture not in folders:
            path = tmp_path_factory.mktemp(architecture)
            folders[architecture] = tiny_models.create(architecture, path)
        return folders[architecture]

    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Show the end of the server's log with a failure."""
    report = yield
    if report.failed and Server.logs:
        log = Server.logs[-1].read_text(errors="replace")
        report.sections.append(("server log", log[-6000:]))
    return report
