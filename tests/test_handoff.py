"""The row in which a prefill server hands a request's first step on."""

import ctypes
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from soft_batches import PARAMS

from soft_sglang import handoff
from soft_sglang.handoff import Handoff, HandoffError, HandoffRows
from soft_sglang.options import MAX_TOPK_LIMIT
from soft_sglang.parameters import SoftThinkingParams
from soft_sglang.trace import PolicyMemory, Step

HIDDEN = 24
ROOM = 2**63 - 5
"""A gateway draws them from 63 bits."""


def rows(count: int = 4, dtype: torch.dtype = torch.float32, hidden: int = HIDDEN) -> HandoffRows:
    return HandoffRows(count, hidden, dtype)


def transfer(sender: HandoffRows, index: int, receiver: HandoffRows, to: int) -> None:
    """Copy a row as SGLang does: from the sizes of the sender alone."""
    address, _, size = sender.buffer()
    target, total, _ = receiver.buffer()
    assert (to + 1) * size <= total
    ctypes.memmove(target + to * size, address + index * size, size)


def handed_on(
    step: Step | None,
    params: SoftThinkingParams | None = PARAMS,
    other: SoftThinkingParams | None = PARAMS,
    dtype: torch.dtype = torch.float32,
) -> Handoff | None:
    sender, receiver = rows(3, dtype), rows(9, dtype)
    sender.write(2, ROOM, params, step)
    transfer(sender, 2, receiver, 7)
    return receiver.read(7, ROOM, other)


def mixture(size: int, columns: int) -> Step:
    """A concept of ``size`` tokens in ``columns``."""
    ids, weights = np.zeros(columns, np.int64), np.zeros(columns, np.float32)
    ids[:size] = 200_000 + np.arange(size)
    weights[:size] = np.random.default_rng(size).dirichlet(np.ones(size))
    return Step(ids, weights, 1.0 / 3, 200_001, True)


@pytest.mark.parametrize(("size", "columns"), [(1, 1), (1, 8), (5, 8), (32, 32)])
def test_a_mixture_arrives_bit_for_bit(size: int, columns: int) -> None:
    step = mixture(size, columns)
    taken = handed_on(step)
    assert taken is not None and taken.step is not None
    assert taken.seed == PARAMS.seed
    assert taken.step.ids.tolist() == step.ids[:size].tolist()
    assert taken.step.ids.dtype == np.int64
    assert taken.step.weights.tobytes() == step.weights[:size].tobytes()
    assert taken.step[2:] == step[2:]


def test_the_widest_mixture_fits() -> None:
    taken = handed_on(mixture(MAX_TOPK_LIMIT, MAX_TOPK_LIMIT))
    assert taken is not None and taken.step is not None
    assert len(taken.step.ids) == MAX_TOPK_LIMIT


def test_a_first_weight_of_zero_and_negative_ones() -> None:
    ids, weights = np.array([3, 4, 5, 0]), np.array([0, -0.5, 1.5, 0], np.float32)
    taken = handed_on(Step(ids, weights, 0.0, 3, False))
    assert taken is not None and taken.step is not None
    assert taken.step.weights.tolist() == [0.0, -0.5, 1.5]
    assert taken.step.end_allowed is False


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_what_a_policy_remembers(dtype: torch.dtype) -> None:
    hidden = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(1)).to(dtype)
    state = [0.1, -2.0, float("inf"), 1e300, 5.0, 6.0]
    step = mixture(3, 4)._replace(memory=PolicyMemory(state, hidden))
    taken = handed_on(step, dtype=dtype)
    assert taken is not None and taken.step is not None and taken.step.memory is not None
    assert taken.step.memory.state == state
    assert taken.step.memory.hidden is not None
    assert torch.equal(taken.step.memory.hidden, hidden)
    assert taken.step.ids.tolist() == step.ids[:1].tolist()  # fed instead of the mixture

    bare = mixture(3, 4)._replace(memory=PolicyMemory(state, None))
    taken = handed_on(bare, dtype=dtype)
    assert taken is not None and taken.step is not None and taken.step.memory is not None
    assert taken.step.memory.hidden is None
    assert len(taken.step.ids) == 3


def test_what_was_taken_over_does_not_change_with_the_row() -> None:
    sender = rows()
    hidden = torch.arange(HIDDEN, dtype=torch.float32)
    sender.write(0, ROOM, PARAMS, mixture(2, 4)._replace(memory=PolicyMemory([0.0] * 6, hidden)))
    taken = sender.read(0, ROOM, PARAMS)
    sender.write(0, ROOM + 1, PARAMS, mixture(4, 4))
    assert taken is not None and taken.step is not None and taken.step.memory is not None
    assert taken.step.ids.tolist() == [200_000]
    assert torch.equal(taken.step.memory.hidden, hidden)


def test_a_request_without_a_step() -> None:
    assert handed_on(None) == Handoff(PARAMS.seed, None)
    assert handed_on(None, params=None, other=None) is None


def test_the_seed_is_the_senders() -> None:
    taken = handed_on(None, replace(PARAMS, seed=-(2**63)), replace(PARAMS, seed=5))
    assert taken is not None and taken.seed == -(2**63)


def test_the_size_of_a_row_does_not_depend_on_options() -> None:
    """The sender computes from its own where a row of the receiver lies."""
    sizes = {rows(count).buffer()[2] for count in (1, 7)}
    assert len(sizes) == 1
    (size,) = sizes
    assert size % 8 == 0
    assert rows(7).buffer()[1] == 7 * size
    assert rows(hidden=16384).buffer()[2] > size


def others() -> Iterator[tuple[str, SoftThinkingParams]]:
    """A request that differs, by the field that does."""
    for field in fields(SoftThinkingParams):
        if field.name == "seed":
            continue
        value = getattr(PARAMS, field.name)
        if isinstance(value, bool):
            other: object = not value
        elif isinstance(value, str):
            other = value + "x"
        elif isinstance(value, tuple):
            other = (*value, 1)
        else:
            other = value + 1
        yield field.name, replace(PARAMS, **{field.name: other})


@pytest.mark.parametrize(("name", "other"), [*others()])
def test_another_reading_of_the_request_is_an_error(name: str, other: SoftThinkingParams) -> None:
    with pytest.raises(HandoffError, match=rf"soft_thinking\.{name} is not the same"):
        handed_on(mixture(2, 2), other=other)


def test_soft_on_one_server_only_is_an_error() -> None:
    with pytest.raises(HandoffError, match=r"took the request for an ordinary one.*for a soft one"):
        handed_on(None, params=None, other=PARAMS)
    with pytest.raises(HandoffError, match=r"took the request for a soft one.*for an ordinary one"):
        handed_on(mixture(2, 2), other=None)


def test_nothing_arrived() -> None:
    """Nothing at all, or the row of the slot's former request."""
    receiver = rows()
    assert receiver.read(0, ROOM, None) is None
    with pytest.raises(HandoffError, match="the prefill server runs without it"):
        receiver.read(0, ROOM, PARAMS)
    receiver.write(0, ROOM - 1, PARAMS, mixture(2, 2))
    assert receiver.read(0, ROOM, None) is None
    with pytest.raises(HandoffError, match="the prefill server runs without it"):
        receiver.read(0, ROOM, PARAMS)


def test_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    sender, receiver = rows(), rows()
    with monkeypatch.context() as patch:
        patch.setattr(handoff, "__version__", "9.8.7")
        for index, params in enumerate([PARAMS, None]):
            sender.write(index, ROOM, params, None)
            transfer(sender, index, receiver, index)
    for params in (PARAMS, None):
        with pytest.raises(HandoffError, match=r"prefill server runs soft-sglang 9\.8\.7"):
            receiver.read(0, ROOM, params)
    assert receiver.read(1, ROOM, None) is None  # an ordinary request on both
