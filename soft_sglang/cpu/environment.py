"""Chooses the CPU engine where there is no accelerator, and makes stock SGLang import there."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

_STANDINS = Path(__file__).parent / "standins"
_CPU_ENGINE = "SGLANG_USE_CPU_ENGINE"


def has_accelerator() -> bool:
    """Whether PyTorch sees a GPU or another accelerator."""
    import torch

    return torch.accelerator.is_available()


def prepare() -> bool:
    """Choose the CPU engine if there is no accelerator; must precede the first import of SGLang.

    The choice and the stand-ins reach spawned processes through the environment and ``sys.path``,
    which Python hands on.

    Returns:
        Whether the CPU engine is chosen.
    """
    if os.environ.get(_CPU_ENGINE) != "1":
        if has_accelerator():
            return False
        os.environ[_CPU_ENGINE] = "1"
    if find_spec("sgl_kernel") is None:
        sys.path.append(str(_STANDINS / "when_missing"))
    if _torchvision_needs_schemas():
        sys.path.insert(0, str(_STANDINS / "before_torchvision"))
    return True


def _torchvision_needs_schemas() -> bool:
    """Whether torchvision is a CUDA build next to a CPU build of PyTorch."""
    import torch

    if "torchvision" in sys.modules or torch.version.cuda is not None:
        return False
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None or _STANDINS in Path(spec.origin).parents:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.exists() and "+cu" in version.read_text()
