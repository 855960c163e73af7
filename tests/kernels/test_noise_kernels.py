"""The noise inside of kernels: the same numbers as the reference in PyTorch."""

import numpy as np
import pytest
import tolerances
import torch
from one_thread import one_thread  # noqa: F401 - the import switches it on
from random_inputs import DEVICE, generator
from triton_interpreter import interpreted

from soft_sglang.kernels import noise

with interpreted():
    import noise_kernels

INT64 = torch.iinfo(torch.int64)


def keys(columns: int = 1024) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Seeds, steps and ids, extreme ones among them."""
    rng = generator("noise keys")
    seeds = torch.tensor([0, -1, INT64.max, INT64.min, 2**32 - 1, 2**32, *[0] * 6])
    seeds[6:] = torch.randint(INT64.min, INT64.max, (6,), generator=rng)
    steps = torch.randint(0, 2**31, (12,), generator=rng)
    steps[:3] = torch.tensor([0, 1, 2**32 - 1])
    ids = torch.randint(0, 2**24, (12, columns), generator=rng)
    ids[:, :2] = torch.tensor([0, 2**24 - 1])
    return seeds, steps, ids


def on_device(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.to(DEVICE) for tensor in tensors]


@pytest.mark.parametrize("stream", [0, 1, 25, 26])
def test_uniform_bit_for_bit(stream: int) -> None:
    numbers = noise_kernels.uniform(*on_device(*keys()), stream)
    assert torch.equal(numbers.cpu(), noise.uniform(*keys(), stream))


def test_gumbel() -> None:
    numbers = noise_kernels.gumbel(*on_device(*keys())).cpu()
    assert torch.isfinite(numbers).all()
    np.testing.assert_allclose(numbers, noise.gumbel(*keys()), **tolerances.NOISE)


def test_sampling_gumbel() -> None:
    """The lower tail, which never decides, is coarse."""
    numbers = noise_kernels.sampling_gumbel(*on_device(*keys(8192))).cpu()
    exact = noise.sampling_gumbel(*keys(8192))
    assert torch.isfinite(numbers).all()
    deciding = exact > -1
    assert deciding.float().mean() > 0.9
    np.testing.assert_allclose(numbers[deciding], exact[deciding], **tolerances.NOISE)
    assert (numbers[~deciding] < -0.9).all()


def test_log_gamma_variate() -> None:
    seeds, steps, ids = keys(256)
    powers = torch.rand(ids.shape, generator=generator("concentrations")) * 12 - 8
    concentration = 10.0**powers
    numbers = noise_kernels.log_gamma_variate(*on_device(concentration, seeds, steps, ids)).cpu()
    exact = noise.log_gamma_variate(concentration, seeds, steps, ids)
    assert torch.isfinite(numbers).all()
    # a proposal may be a near tie between acceptance and rejection
    near = torch.isclose(numbers, exact, **tolerances.LOG_GAMMA)
    assert (~near).sum() <= 2, (numbers[~near], exact[~near])
