"""What a run ran on, in one line."""

import os
import platform
from pathlib import Path


def describe_machine() -> str:
    """Accelerator, processor and number of cores of this machine."""
    cores = len(os.sched_getaffinity(0))
    parts = [f"{cores} cores of {processor_name()}"]
    accelerator = _accelerator()
    if accelerator:
        parts.insert(0, accelerator)
    return ", ".join(parts)


def processor_name() -> str:
    """Model of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _accelerator() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
