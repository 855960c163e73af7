"""At most one engine at a time: SGLang's shutdown kills every child of its process."""

import atexit
from typing import Any

import pytest
from prometheus_client import REGISTRY
from tiny_models import tokenizer_path

from soft_sglang import Engine


class EngineHouse:
    """Starts engines as asked, keeping the last one for whoever asks for the same."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._engine: Any = None

    def get(self, model: str, environment: dict[str, str] | None = None, **arguments: Any) -> Any:
        """A running engine of a tiny model, in float32 unless told otherwise."""
        key = repr((model, environment, arguments))
        if key != self._key:
            self.close()
            with pytest.MonkeyPatch.context() as patch:
                for name, value in (environment or {}).items():
                    patch.setenv(name, value)
                self._engine = Engine(
                    model_path=model,
                    tokenizer_path=tokenizer_path(model),
                    **{"dtype": "float32", "random_seed": 0, **arguments},
                )
            self._key = key
        return self._engine

    def close(self) -> None:
        """Shut the running engine down."""
        if self._engine is not None:
            self._engine.shutdown()
            # at exit it would do so once more, and log to a file that pytest has closed by then
            atexit.unregister(self._engine.shutdown)
            _forget_metrics()
        self._engine = self._key = None


def _forget_metrics() -> None:
    """Let the next engine of this process register its metrics; SGLang 0.5.21 fails otherwise."""
    for collector in set(REGISTRY._names_to_collectors.values()):
        REGISTRY.unregister(collector)


PAGED = {"TRITON_INTERPRET": "1"}
"""Environment for page sizes above 1 on a CPU: SGLang's paged allocator is a Triton kernel."""
