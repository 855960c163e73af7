"""A step that another process embeds: its table is fed what the sampler's is, its traces agree."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch
from one_thread import one_thread  # noqa: F401 - the import switches it on
from test_guided_step import (
    VOCAB,
    Row,
    advance,
    fed,
    hidden_states,
    random_logits,
    random_requests,
    record,
    started,
)
from test_host_sync import no_host_sync
from tiny_models import THINK_END

from soft_sglang.concept_sampler import ConceptStep
from soft_sglang.concept_table import ConceptTable
from soft_sglang.patches.scheduler.step_output import PP_PREFIX, RelayedOutput
from soft_sglang.relayed_step import feed, pack, unpack
from soft_sglang.trace import RequestTrace

ENDS, AT = 2, 5
"""Slot of a request that ends its thinking by itself, and the step at which it does."""


def _rows(*, guided: bool) -> list[Row]:
    """Soft thinking, thinking again, discrete; and every policy twice."""
    requests = random_requests(12, seed=3)
    soft = {"max_topk": 5, "early_stopping_entropy_threshold": 0}
    rows = [Row(1, requests[0], soft), Row(ENDS, requests[0], soft)]
    rows += [Row(3, requests[0], {**soft, "max_topk": 9, "noise": "gumbel"}), Row(4, None)]
    if guided:
        rows += [Row(slot, request) for slot, request in enumerate(requests, 5)]
    return rows


def _relay(step: ConceptStep, table: ConceptTable, slots: torch.Tensor) -> dict[str, torch.Tensor]:
    """From one process to another, as SGLang sends it."""
    sent = RelayedOutput(step.plan, pack(*step.written())).to_pp_tensors()
    assert all(t.is_contiguous() and t.dtype is not torch.bool for t in sent.values())
    received = {name.removeprefix(PP_PREFIX): tensor.clone() for name, tensor in sent.items()}
    feed(table, step.plan, slots, *unpack(received))
    return received


def _record(
    traces: Sequence[RequestTrace | None],
    ids: torch.Tensor,
    step: ConceptStep,
    received: dict[str, torch.Tensor],
) -> None:
    """What a scheduler that only receives does with a step."""
    output = RelayedOutput(step.plan, received).copy_to_host(torch.clone)
    reqs = [SimpleNamespace(soft_thinking=trace) for trace in traces]
    output.consume(
        SimpleNamespace(reqs=reqs), [SimpleNamespace(token_ids=[i]) for i in ids.tolist()]
    )


@pytest.mark.parametrize("guided", [False, True], ids=["soft thinking", "all policies"])
@pytest.mark.parametrize("samples", [False, True], ids=["other sampler", "samples"])
def test_the_other_process_is_told_everything(guided: bool, samples: bool) -> None:
    """With another part of the rows in every step, so that the widths differ too."""
    rows = _rows(guided=guided)
    table, other = (started(rows, len(rows) + 1) for _ in range(2))
    traces, others = ([row.trace() for row in rows] for _ in range(2))
    seen: set[str] = set()
    emitted = torch.tensor(VOCAB)  # no token: to be told from a mixture's
    for number, logits in enumerate(random_logits(len(rows), seed=5)):
        if number == AT:
            logits[ENDS - 1, THINK_END] = 100.0
        here = [row for row in rows if (row.slot + number) % 3]
        slots = torch.tensor([row.slot for row in here])
        hidden = hidden_states(len(here), number)
        ids, step = advance(table, here, logits[slots - 1], hidden, samples and not guided)
        received = _relay(step, other, slots)
        record([traces[row.slot - 1] for row in here], ids, step)
        _record([others[row.slot - 1] for row in here], ids, step, received)
        for row in rows:
            want = fed(table, row.slot, emitted)
            assert fed(other, row.slot, emitted) == want
            seen.add("hidden" if want is None else "token" if len(want) == 1 else "mixture")
            if want is None:
                assert table.hidden is not None and other.hidden is not None
                assert torch.equal(other.hidden[row.slot], table.hidden[row.slot])
    assert traces[ENDS - 1].state.end == "think_end"
    assert seen == {"token", "mixture"} | ({"hidden"} if guided else set())
    for row, trace, same in zip(rows, traces, others, strict=True):
        if trace is not None and same is not None:
            assert same.row_start(row.slot, 0) == trace.row_start(row.slot, 0)
            assert repr(same.concepts) == repr(trace.concepts)
            assert same.report("length") == trace.report("length")


def test_the_way_makes_nobody_wait_for_the_device() -> None:
    rows = _rows(guided=True)
    table, other = (started(rows, len(rows) + 1) for _ in range(2))
    hidden = hidden_states(len(rows), 0)
    other.hidden_rows(hidden)
    slots = torch.tensor([row.slot for row in rows])
    with no_host_sync():
        _, step = advance(table, rows, torch.randn(len(rows), VOCAB), hidden)
        _relay(step, other, slots)
