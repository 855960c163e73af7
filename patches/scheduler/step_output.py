"""A step's result on its way to the scheduler: an auxiliary output of SGLang's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from soft_sglang.concept_sampler import BatchPlan
from soft_sglang.guided_step import GuidedResult
from soft_sglang.kernels.thinking_step import StepResult
from soft_sglang.patches.scheduler.metrics import active_metrics, metrics_for
from soft_sglang.patches.scheduler.request import trace_of
from soft_sglang.relayed_step import unpack
from soft_sglang.trace import PolicyMemory, Step

PP_PREFIX = "soft_thinking."
"""Of the names of our tensors among those that SGLang sends with the sampled ids."""


@dataclass(frozen=True)
class GuidedOutput:
    """What the host keeps of the rows of one policy."""

    positions: Sequence[int]
    """Rows of the batch, as in the plan."""
    result: GuidedResult

    def copied(self, copy_tensor: Callable[[torch.Tensor], torch.Tensor]) -> "GuidedOutput":
        """The same with every tensor copied."""
        state, fed_hidden, hidden = self.result
        result = GuidedResult(
            copy_tensor(state),
            copy_tensor(fed_hidden),
            None if hidden is None else copy_tensor(hidden),
        )
        return GuidedOutput(self.positions, result)

    def memories(self) -> Iterator[tuple[int, PolicyMemory]]:
        """What to remember of each row, by position; the tensors are the host's."""
        state = self.result.state.tolist()
        fed_hidden = self.result.fed_hidden.tolist()
        for row, position in enumerate(self.positions):
            hidden = self.result.hidden
            fed = hidden[row].clone() if hidden is not None and fed_hidden[row] else None
            yield position, PolicyMemory(state[row], fed)


@dataclass(frozen=True)
class DeviceOutput:
    """Fresh tensors on the device; SGLang copies them asynchronously with the sampled ids."""

    positions: Sequence[int]
    """Rows of the batch, as in the plan."""
    output: StepResult
    guided: Sequence[GuidedOutput] = ()

    @classmethod
    def of(
        cls, plan: BatchPlan, output: StepResult, guided: Sequence[GuidedResult]
    ) -> "DeviceOutput":
        """The output of a batch."""
        pairs = zip(plan.guided, guided, strict=True)
        outputs = tuple(GuidedOutput(group.positions, result) for group, result in pairs)
        return cls(plan.positions, output, outputs)

    def copy_to_host(self, copy_tensor: Callable[[torch.Tensor], torch.Tensor]) -> "HostOutput":
        """Start the copy."""
        return HostOutput(
            self.positions,
            StepResult(*(copy_tensor(t) for t in self.output)),
            [guided.copied(copy_tensor) for guided in self.guided],
        )


@dataclass(frozen=True)
class RelayedOutput:
    """The same packed, for schedulers in other processes; see ``soft_sglang.relayed_step``."""

    plan: BatchPlan
    tensors: Mapping[str, torch.Tensor]

    def to_pp_tensors(self) -> Mapping[str, torch.Tensor]:
        """What SGLang sends with the sampled ids to the other stages of a pipeline."""
        return {PP_PREFIX + name: tensor for name, tensor in self.tensors.items()}

    def copy_to_host(self, copy_tensor: Callable[[torch.Tensor], torch.Tensor]) -> "HostOutput":
        """Start the copy."""
        copied = {name: copy_tensor(tensor) for name, tensor in self.tensors.items()}
        output = DeviceOutput.of(self.plan, *unpack(copied))
        return HostOutput(output.positions, output.output, output.guided)


@dataclass(frozen=True)
class HostOutput:
    """The same on the host."""

    positions: Sequence[int]
    output: StepResult
    guided: Sequence[GuidedOutput] = ()

    def steps(self) -> Iterator[tuple[int, Step]]:
        """The step of each row, by position in the batch."""
        memories = dict(memory for guided in self.guided for memory in guided.memories())
        columns = zip(
            self.output.ids.numpy(),
            self.output.weights.numpy(),
            self.output.entropy.tolist(),
            self.output.proposal.tolist(),
            self.output.end_allowed.tolist(),
            strict=True,
        )
        for position, step in zip(self.positions, columns, strict=True):
            yield position, Step(*step, memories.get(position))

    def consume(self, batch: Any, commits: Sequence[Any]) -> None:
        """Record the committed steps in the requests' traces.

        ``commits[i]`` is None for a row whose token was not committed: retracted, finished before,
        or in the middle of its prefill.
        """
        counted: list[float] = []
        cold_stops = 0
        for position, step in self.steps():
            req = batch.reqs[position]
            commit, trace = commits[position], trace_of(req)
            if commit is None or trace is None or not trace.is_recording:
                continue
            thinking = trace.is_thinking
            trace.commit(commit.token_ids[0], *step)
            if thinking and metrics_for(req) is not None:
                counted.append(step.entropy)
                cold_stops += not trace.is_thinking and trace.state.end == "cold_stop"
        metrics = active_metrics()
        if metrics is not None:
            metrics.steps_committed(counted, cold_stops)
