"""What a device's memory gives: the rate of a large copy, and the time to read a tensor once."""

from collections.abc import Sequence
from functools import partial

import torch
import triton
import triton.language as tl

from support.device_timer import Timer, Timing


def copy_rate(timer: Timer) -> float:
    """Bytes per second, read plus written, of copies far larger than the cache."""
    size = 8 * timer.cache_bytes
    pairs = [torch.empty(2, size // 4, device=timer.device).normal_() for _ in range(2)]
    timing = timer.time([partial(pair[0].copy_, pair[1]) for pair in pairs])
    return 2 * size / (1e-6 * timing.median)


def read_time(timer: Timer, inputs: Sequence[torch.Tensor]) -> Timing:
    """Of reading contiguous ``[B, V]`` tensors once each; on a GPU the best of some block sizes."""
    if timer.device.type == "cpu":
        return timer.time([partial(torch.amax, values, dim=-1) for values in inputs])
    return min(
        (_block_read_time(timer, inputs, block) for block in (1024, 2048, 4096, 8192)),
        key=lambda timing: timing.median,
    )


def _block_read_time(timer: Timer, inputs: Sequence[torch.Tensor], block: int) -> Timing:
    rows, columns = inputs[0].shape
    chunks = triton.cdiv(columns, block)
    out = inputs[0].new_full((rows, chunks), torch.nan)
    launch = reading_kernel[(chunks, rows)]
    timing = timer.time(
        [partial(launch, out, values, columns, BLOCK=block, num_warps=4) for values in inputs]
    )
    if not torch.equal(out.amax(dim=-1), inputs[-1].amax(dim=-1)):
        raise RuntimeError("reading_kernel did not read everything")
    return timing


@triton.jit
def reading_kernel(out_ptr, values_ptr, columns, BLOCK: tl.constexpr):
    """The largest of each block of a row; grid ``(blocks, rows)``."""
    block = tl.program_id(0)
    row = tl.program_id(1)
    column = block * BLOCK + tl.arange(0, BLOCK)
    values_ptr += row.to(tl.int64) * columns
    values = tl.load(values_ptr + column, mask=column < columns, other=-float("inf"))
    tl.store(out_ptr + row * tl.num_programs(0) + block, tl.max(values, axis=0))
