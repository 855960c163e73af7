"""Pipeline parallelism: every stage learns what the last one has sampled."""

from collections.abc import Callable
from typing import Any

import torch

from soft_sglang.patches.model_worker.forward_batch import plan_of
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.step_output import PP_PREFIX, HostOutput, RelayedOutput
from soft_sglang.relayed_step import feed, unpack


@patch(
    "managers.scheduler_pp_mixin.SchedulerPPMixin._pp_prep_batch_result",
    When.AROUND,
    why=(
        "The last stage samples concepts, the first one embeds them. And every stage schedules "
        "by itself, so each needs the traces: by them it stops, resumes and caches a request. "
        "SGLang hands what goes with the sampled ids to the first stage only, and to an observer."
    ),
    how=(
        "Takes the step's result out of the message, writes it to the first stage's table, hands "
        "it to the scheduler, and leaves it in the message, which goes on to the next stage."
    ),
    upstream="Auxiliary outputs that reach every stage, and without an observer, would replace it.",
)
def receive_step(
    original: Callable[..., Any], self: Any, batch: Any, mb_metadata: Any, pp_outputs: Any
) -> Any:
    """Prepare the result of a micro-batch; on the stream on which SGLang stores its ids."""
    from sglang.srt.managers.auxiliary_output import CompositeHostAuxiliaryOutput

    message: dict[str, Any] = pp_outputs.tensors
    sent = {name: message.pop(name) for name in [*message] if name.startswith(_prefix())}
    result = original(self, batch, mb_metadata, pp_outputs)
    if sent:
        message.update(sent)
        step = {name.removeprefix(_prefix()): tensor for name, tensor in sent.items()}
        output: Any = _received(self.tp_worker.model_runner.soft_thinking, batch, step)
        if result.auxiliary_host_output is not None:
            output = CompositeHostAuxiliaryOutput((result.auxiliary_host_output, output))
        result.auxiliary_host_output = output
    return result


def _received(runtime: Any, batch: Any, step: dict[str, torch.Tensor]) -> HostOutput:
    """The output for the scheduler; the table is written where it is embedded from."""
    from sglang.srt.utils.common import async_d2h

    plan = plan_of(batch, runtime.table.device)
    assert plan is not None, "the last stage knows of soft requests, this one of none"
    if runtime.embedding is not None:
        feed(runtime.table, plan, batch.req_pool_indices, *unpack(step))
    return RelayedOutput(plan, step).copy_to_host(async_d2h)


def _prefix() -> str:
    """Of the names of our tensors in the message."""
    from sglang.srt.sampling.sampling_observer_pp import _OUTPUT_PREFIX

    return f"{_OUTPUT_PREFIX}{PP_PREFIX}"
