"""The concept embedding in one Triton kernel."""

import torch
import triton
import triton.language as tl

_TOKENS_AT_ONCE = 8
"""Rows of the table that are in flight together."""
_COLUMNS = 1024
"""Largest number of columns per program: 16 bytes of bfloat16 for each of 128 threads."""
_PROGRAMS = 264
"""Two per multiprocessor of an H100; smaller blocks of columns until there are as many."""


def concept_embedding(
    weight: torch.Tensor,
    input_ids: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    slots: torch.Tensor,
    vocab_start: int,
    out: torch.Tensor,
) -> torch.Tensor:
    """See :func:`soft_sglang.kernels.concept_embedding.concept_embedding`."""
    rows, dim = out.shape
    if rows == 0:
        return out
    block = min(_COLUMNS, triton.next_power_of_2(dim))
    while block > 256 and rows * triton.cdiv(dim, block) < _PROGRAMS:
        block //= 2
    width = ids.shape[1]
    concept_embedding_kernel[(rows, triton.cdiv(dim, block))](
        out,
        weight,
        input_ids,
        ids,
        weights,
        slots,
        vocab_start,
        weight.shape[0],
        dim,
        out.stride(0),
        weight.stride(0),
        ids.stride(0),
        weights.stride(0),
        WIDTH=width,
        WIDTH_POWER=triton.next_power_of_2(width),
        TOKENS=_TOKENS_AT_ONCE,
        BLOCK=block,
        num_warps=max(1, block // 256),
    )
    return out


@triton.jit
def concept_embedding_kernel(
    out_ptr,
    table_ptr,
    input_ids_ptr,
    ids_ptr,
    weights_ptr,
    slots_ptr,
    vocab_start,
    vocab_rows,
    dim,
    out_stride,
    table_stride,
    ids_stride,
    weights_stride,
    WIDTH: tl.constexpr,
    WIDTH_POWER: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row's block of columns; grid ``(rows, blocks of columns)``.

    The first token's row is loaded before the concept is known: it is the emitted one in any case.
    """
    row = tl.program_id(0)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    token = tl.load(input_ids_ptr + row).to(tl.int64) - vocab_start
    shard_dim = tl.where((token >= 0) & (token < vocab_rows), dim, 0)
    first = tl.load(table_ptr + token * table_stride + columns, mask=columns < shard_dim, other=0.0)

    slot = tl.load(slots_ptr + row).to(tl.int64)
    weights_ptr += slot * weights_stride
    ids_ptr += slot * ids_stride
    column = tl.arange(0, WIDTH_POWER)
    weights = tl.load(weights_ptr + column, mask=column < WIDTH, other=0.0)
    count = 1 + tl.sum(((weights != 0) & (column > 0)).to(tl.int32))
    out = out_ptr + row.to(tl.int64) * out_stride + columns
    if count > 1:
        mixed = first.to(tl.float32) * tl.load(weights_ptr)
        for start in range(1, count, TOKENS):
            k = start + tl.arange(0, TOKENS)
            weight = tl.load(weights_ptr + k, mask=k < count, other=0.0)
            tokens = tl.load(ids_ptr + k, mask=k < count, other=-1).to(tl.int64) - vocab_start
            readable = (k < count) & (tokens >= 0) & (tokens < vocab_rows)
            rows = tl.load(
                table_ptr + tokens[:, None] * table_stride + columns[None, :],
                mask=readable[:, None] & (columns < dim)[None, :],
                other=0.0,
            )
            mixed += tl.sum(rows.to(tl.float32) * weight[:, None], axis=0)
        tl.store(out, mixed.to(out_ptr.dtype.element_ty), mask=columns < dim)
    else:
        tl.store(out, first, mask=columns < dim)
