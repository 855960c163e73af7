"""The Dockerfiles pass the linter, and the linter can fail."""

import subprocess
import sysconfig
from pathlib import Path

import pytest

DOCKER = Path(__file__).parent.parent / "docker"
HADOLINT = Path(sysconfig.get_path("scripts"), "hadolint")


def lint(dockerfile: str) -> tuple[int, str]:
    command = [HADOLINT, "--no-color", "-"]
    done = subprocess.run(command, input=dockerfile, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["gpu", "cpu", "gateway"])
def test_dockerfile_has_no_findings(name: str) -> None:
    assert lint((DOCKER / f"{name}.Dockerfile").read_text()) == (0, "")


def test_linter_finds_something_in_a_bad_dockerfile() -> None:
    status, output = lint("FROM debian:latest\n")
    assert status != 0
    assert "DL3007" in output
