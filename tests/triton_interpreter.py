"""Triton's interpreter: kernels run on machines without a GPU.

A kernel is compiled or interpreted as ``TRITON_INTERPRET`` says while it is decorated, Triton's own
functions included. The engines and servers that tests start inherit the environment, and nothing
there may be interpreted, so the variable is set for the imports alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch


@contextmanager
def interpreted() -> Iterator[None]:
    """Kernels decorated inside are interpreted where PyTorch sees no GPU, else compiled."""
    if torch.cuda.is_available():
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        import triton.experimental.gluon  # noqa: F401 - else the first launch would import it

        yield
    _sort_fast()


def _sort_fast() -> None:
    """Reduce with XOR in NumPy.

    The interpreter knows sums, minima and maxima; anything else it reduces in a Python loop over
    the elements. ``tl.sort`` reduces with XOR dozens of times, which would take seconds.
    """
    import triton.language as tl
    from triton.runtime.interpreter import ReduceOps

    slow = ReduceOps.apply_impl
    if slow.__module__ == __name__:
        return

    def apply_impl(self: Any, input: Any) -> Any:
        if self.combine_fn is not tl.standard._xor_combine:
            return slow(self, input)
        (x,) = input
        data = np.bitwise_xor.reduce(x.handle.data, axis=self.axis, keepdims=self.keep_dims)
        return self.to_tensor(data, x.dtype)

    ReduceOps.apply_impl = apply_impl
