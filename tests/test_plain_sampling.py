"""When the concept step may take the place of SGLang's sampler."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sglang.srt.layers.sampler import Sampler

from soft_sglang.kernels.sampling import Sampling
from soft_sglang.patches.model_worker.sampler import is_plain_sampling


class OwnSampler(Sampler):
    """What ``register_sampler_backend`` takes."""


def sampler(kind: type[Sampler] = Sampler, rl_on_policy_target: str | None = None) -> Sampler:
    made = kind.__new__(kind)
    torch.nn.Module.__init__(made)
    made.rl_on_policy_target = rl_on_policy_target
    return made


PLAIN = {"sampling_seed": None, "sampling_mask_batch_indices": None}


@pytest.mark.parametrize(
    ("used", "backend", "changes", "expected"),
    [
        (sampler(), "pytorch", {}, True),
        (sampler(), "flashinfer", {}, True),
        (sampler(), "ascend", {}, False),
        (sampler(), "intel_xpu", {}, False),
        (sampler(OwnSampler), "pytorch", {}, False),
        (sampler(rl_on_policy_target="fsdp"), "pytorch", {}, False),
        (sampler(), "pytorch", {"sampling_seed": torch.tensor([1])}, False),
        (sampler(), "pytorch", {"sampling_mask_batch_indices": torch.tensor([0])}, False),
    ],
)
def test_plain_sampling(
    used: Sampler, backend: str, changes: dict[str, Any], expected: bool
) -> None:
    info = SimpleNamespace(**{**PLAIN, **changes})
    assert is_plain_sampling(used, backend, info) is expected


@pytest.mark.parametrize(
    ("all_rows", "expected"), [(True, [True, True, True]), (False, [True, False, True])]
)
def test_a_rows_own_min_p_decides_how_it_is_filtered(all_rows: bool, expected: list[bool]) -> None:
    one = torch.ones(3)
    sampling = Sampling(one[:, None], one, one.int(), torch.tensor([0.0, 0.1, 0.0]))
    assert sampling.joint(all_rows).tolist() == expected
