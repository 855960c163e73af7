"""The noise functions as kernels of their own; imported inside of ``interpreted``."""

import torch
import triton
import triton.language as tl

from soft_sglang.kernels import noise_triton as noise


@triton.jit
def uniform_kernel(out_ptr, seeds_ptr, steps_ptr, ids_ptr, STREAM: tl.constexpr, N: tl.constexpr):
    row = tl.program_id(0)
    column = row * N + tl.arange(0, N)
    seed, step = tl.load(seeds_ptr + row), tl.load(steps_ptr + row)
    tl.store(out_ptr + column, noise.uniform(seed, step, tl.load(ids_ptr + column), STREAM))


@triton.jit
def gumbel_kernel(out_ptr, seeds_ptr, steps_ptr, ids_ptr, SAMPLING: tl.constexpr, N: tl.constexpr):
    row = tl.program_id(0)
    column = row * N + tl.arange(0, N)
    seed, step = tl.load(seeds_ptr + row), tl.load(steps_ptr + row)
    ids = tl.load(ids_ptr + column)
    if SAMPLING:
        tl.store(out_ptr + column, noise.sampling_gumbel(seed, step, ids))
    else:
        tl.store(out_ptr + column, noise.gumbel(seed, step, ids))


@triton.jit
def log_gamma_kernel(out_ptr, concentrations_ptr, seeds_ptr, steps_ptr, ids_ptr, N: tl.constexpr):
    row = tl.program_id(0)
    column = row * N + tl.arange(0, N)
    seed, step = tl.load(seeds_ptr + row), tl.load(steps_ptr + row)
    concentration = tl.load(concentrations_ptr + column)
    ids = tl.load(ids_ptr + column)
    tl.store(out_ptr + column, noise.log_gamma_variate(concentration, seed, step, ids))


def empty(ids: torch.Tensor) -> torch.Tensor:
    return torch.full(ids.shape, torch.nan, dtype=torch.float32, device=ids.device)


def uniform(seed: torch.Tensor, step: torch.Tensor, ids: torch.Tensor, stream: int) -> torch.Tensor:
    out = empty(ids)
    uniform_kernel[(len(ids),)](out, seed, step, ids, STREAM=stream, N=ids.shape[1])
    return out


def gumbel(seed: torch.Tensor, step: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    out = empty(ids)
    gumbel_kernel[(len(ids),)](out, seed, step, ids, SAMPLING=False, N=ids.shape[1])
    return out


def sampling_gumbel(seed: torch.Tensor, step: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    out = empty(ids)
    gumbel_kernel[(len(ids),)](out, seed, step, ids, SAMPLING=True, N=ids.shape[1])
    return out


def log_gamma_variate(
    concentration: torch.Tensor, seed: torch.Tensor, step: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    out = empty(ids)
    log_gamma_kernel[(len(ids),)](out, concentration, seed, step, ids, N=ids.shape[1])
    return out
