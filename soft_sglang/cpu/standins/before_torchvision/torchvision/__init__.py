"""Imports the real ``torchvision``, after defining the operators that its import needs.

The torchvision of PyPI is built for CUDA; next to a CPU build of PyTorch its compiled operators do
not load, and its import fails where it describes them. Their schemas are enough for it.
"""

import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import module_from_spec

import torch

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    with suppress(RuntimeError):  # defined already
        _library.define(_name + _SCHEMA)

# the folder of this file stays on sys.path: spawned processes inherit it
_elsewhere = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
_spec = PathFinder.find_spec(__name__, _elsewhere)
assert _spec is not None and _spec.loader is not None, "torchvision is not installed"
_real = module_from_spec(_spec)
_real._soft_sglang_library = _library  # type: ignore[attr-defined]  # keeps the schemas alive
sys.modules[__name__] = _real
_spec.loader.exec_module(_real)
