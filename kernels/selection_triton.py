"""Exact selection of the largest values of a row, for use inside of Triton kernels.

A binary search for the smallest selected value takes a few counts, where sorting thousands of
values in registers takes thousands of instructions per thread.
"""

import triton
import triton.language as tl


@triton.jit
def ordered(values):
    """int32 that compare like the float32 values; both zeros are equal, and so are all NaN."""
    bits = tl.where(values == 0, 0.0, values).to(tl.int32, bitcast=True)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(values == values, bits, 0x7FFFFFFF)


@triton.jit
def unordered(bits):
    """The values of which :func:`ordered` made ``bits``."""
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def largest(keys, bound, COUNT: tl.constexpr):
    """Which are the ``COUNT`` largest of at least as many int32 keys; of equal ones the first.

    Args:
        keys: ``[N]``.
        bound: at least ``COUNT`` keys are not below it.
        COUNT: number of keys.

    Returns:
        The selection, ``[N]`` bool, and a bound that no selected key is below.
    """
    low = bound
    high = tl.max(keys, axis=0)
    found = tl.sum((keys >= low).to(tl.int32), axis=0)
    while (low < high) & (found != COUNT):
        middle = (low & high) + ((low ^ high) >> 1) + ((low ^ high) & 1)  # rounded up
        above = tl.sum((keys >= middle).to(tl.int32), axis=0)
        enough = above >= COUNT
        low = tl.where(enough, middle, low)
        found = tl.where(enough, above, found)
        high = tl.where(enough, high, middle - 1)
    selected = keys >= low
    if found != COUNT:  # more keys equal the smallest than are missing
        equal = (keys == low).to(tl.int32)
        excess = found - COUNT
        missing = tl.sum(equal, axis=0) - excess
        selected = (keys > low) | (selected & (tl.cumsum(equal, axis=0) <= missing))
    return selected, low


@triton.jit
def compacted(values, selected, scratch_ptr, COUNT: tl.constexpr):
    """The selected values in their order, ``[COUNT]``; all of them must be selected.

    ``scratch_ptr``: room for ``COUNT`` values that nothing else uses.
    """
    position = tl.cumsum(selected.to(tl.int32), axis=0) - 1
    tl.store(scratch_ptr + position, values, mask=selected)
    tl.debug_barrier()  # what one thread stored another loads
    return tl.load(scratch_ptr + tl.arange(0, COUNT))
