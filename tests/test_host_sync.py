"""A step of the concept sampler makes no host synchronisation."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from one_thread import one_thread  # noqa: F401 - the import switches it on
from soft_batches import PARAMS, SAMPLED, VOCAB, Request, plan_of, sampling_of, started

from soft_sglang.concept_sampler import ConceptStep
from soft_sglang.concept_table import ConceptTable

SYNCHRONISING = (
    "item",
    "cpu",
    "tolist",
    "numpy",
    "nonzero",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "__array__",
)


@contextmanager
def no_host_sync() -> Iterator[None]:
    """Everything that reads a tensor's numbers on the host is an error."""

    def refuse(name: str) -> Callable[..., None]:
        def method(*args: object, **kwargs: object) -> None:
            raise AssertionError(f"Tensor.{name} synchronises with the host")

        return method

    with pytest.MonkeyPatch.context() as patch:
        for name in SYNCHRONISING:
            patch.setattr(torch.Tensor, name, refuse(name))
        yield


SYNCHRONISATIONS: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "cpu": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "asarray": lambda x: np.asarray(x),
    "if": lambda x: 1 if x[0] > 0 else 0,
    "any": lambda x: any(x > 0),
    "int": lambda x: int(x[0]),
    "float": lambda x: float(x[0]),
    "range": lambda x: range(x.long()[0]),
    "nonzero": lambda x: x.nonzero(),
}

ON_META_ONLY: dict[str, Callable[[torch.Tensor], object]] = {
    "mask": lambda x: x[x > 0],
    "where": lambda x: torch.where(x > 0),
    "nonzero function": lambda x: torch.nonzero(x),
    "equal": lambda x: torch.equal(x, x + 1),
    "repeat": lambda x: torch.repeat_interleave(x, x.long()),
    "to": lambda x: x.to("cpu"),
}


@pytest.mark.parametrize("name", SYNCHRONISATIONS)
def test_the_guard_catches(name: str) -> None:
    x = torch.ones(3)
    with no_host_sync(), pytest.raises(AssertionError, match="synchronises"):
        SYNCHRONISATIONS[name](x)
    SYNCHRONISATIONS[name](x)  # and is gone afterwards


@pytest.mark.parametrize("name", [*SYNCHRONISATIONS, *ON_META_ONLY])
def test_the_meta_device_catches(name: str) -> None:
    violation = (SYNCHRONISATIONS | ON_META_ONLY)[name]
    with pytest.raises((NotImplementedError, RuntimeError, TypeError)):
        violation(torch.ones(3, device="meta"))


def a_batch_of_everything() -> list[Request]:
    return [
        Request(1, None),
        Request(2, replace(PARAMS, noise="gumbel", max_topk=6)),
        Request(3, replace(PARAMS, noise="dirichlet"), top_k=20, top_p=0.9, min_p=0.1),
        Request(4, PARAMS),
        Request(
            5,
            replace(
                PARAMS,
                think_end_ids=(7, 8),
                cold_stop_ids=(6, 7, 8),
                think_start_ids=(1, 2),
                max_thinking_steps=0,
            ),
        ),
    ]


@pytest.mark.parametrize("discrete", [True, False], ids=["mixed", "all soft"])
def test_a_step_does_not_wait_for_the_device(discrete: bool) -> None:
    requests = a_batch_of_everything()[0 if discrete else 1 :]
    table = started(*requests[1:])
    plan, sampling = plan_of(requests), sampling_of(requests)
    slots = torch.tensor([request.slot for request in requests])
    logits = torch.randn(len(requests), VOCAB)
    assert plan is not None
    with no_host_sync():
        step = ConceptStep(table, plan, slots)
        step.answer_sampling(sampling)
        step.think(logits, sampling, plan.step)
        ids = step.final_ids(SAMPLED[: len(requests)])
        step.rethink(ids)
    assert ids.shape == (len(requests),)


@pytest.mark.parametrize("discrete", [True, False], ids=["mixed", "all soft"])
def test_a_step_reads_nothing_at_all(discrete: bool) -> None:
    """On the meta device there is nothing to read: not even inside an operator of PyTorch."""
    requests = a_batch_of_everything()[0 if discrete else 1 :]
    table = ConceptTable(8, 6, "meta")
    table.start([request.start() for request in requests if request.params])
    plan = plan_of(requests, "meta")
    assert plan is not None
    step = ConceptStep(table, plan, torch.empty(len(requests), dtype=torch.int64, device="meta"))
    logits = torch.empty(len(requests), VOCAB, device="meta")
    step.answer_sampling(sampling_of(requests, "meta"))
    step.think(logits, sampling_of(requests, "meta"), plan.step)
    sampled = torch.empty(len(requests), dtype=torch.int32, device="meta")
    ids = step.final_ids(sampled)
    step.rethink(ids)
    assert ids.shape == (len(requests),)
