"""Soft Thinking (arXiv 2505.15778) for stock SGLang."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soft_sglang.engine import Engine

__version__ = "0.1.0"
__all__ = ["Engine", "__version__"]


def __getattr__(name: str) -> Any:
    """Import SGLang only when the Engine is asked for."""
    if name == "Engine":
        from soft_sglang.engine import Engine

        return Engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
