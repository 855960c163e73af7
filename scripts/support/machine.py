"""What a measurement ran on: the device, its driver, the versions of the software."""

import os
import platform
import subprocess
from importlib import metadata
from typing import Any

from soft_sglang.eval.machine import processor_name

PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "sglang",
    "sglang-kernel",
    "flashinfer-python",
    "soft-sglang",
)


def facts() -> dict[str, Any]:
    """Of this machine, as plain data; what is not there is None."""
    return {
        "gpus": gpus(),
        "cpu": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def gpus() -> list[dict[str, str]]:
    """Name, memory and driver of each GPU, as nvidia-smi reports them; asks no CUDA context."""
    fields = ("name", "memory.total", "driver_version")
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [
        dict(zip(fields, (value.strip() for value in line.split(",")), strict=True))
        for line in done.stdout.splitlines()
    ]


def version(package: str) -> str | None:
    """Of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
