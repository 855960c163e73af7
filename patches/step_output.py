"""A step's result on its way to the scheduler: an auxiliary output of SGLang's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from soft_sglang.kernels.thinking_step import StepResult
from soft_sglang.patches.metrics import active_metrics, metrics_for
from soft_sglang.patches.request import trace_of
from soft_sglang.state_machine import Phase


@dataclass(frozen=True)
class DeviceOutput:
    """Fresh tensors on the device; SGLang copies them asynchronously with the sampled ids."""

    positions: Sequence[int]
    """Rows of the batch, as in the plan."""
    output: StepResult

    def copy_to_host(self, copy_tensor: Callable[[torch.Tensor], torch.Tensor]) -> "HostOutput":
        """Start the copy."""
        return HostOutput(self.positions, StepResult(*(copy_tensor(t) for t in self.output)))


@dataclass(frozen=True)
class HostOutput:
    """The same on the host."""

    positions: Sequence[int]
    output: StepResult

    def consume(self, batch: Any, commits: Sequence[Any]) -> None:
        """Record the committed steps in the requests' traces.

        ``commits[i]`` is None for a row whose token was not committed: retracted, finished before,
        or in the middle of its prefill.
        """
        ids, weights = self.output.ids.numpy(), self.output.weights.numpy()
        entropy = self.output.entropy.tolist()
        proposal = self.output.proposal.tolist()
        allowed = self.output.think_end_allowed.tolist()
        counted: list[float] = []
        cold_stops = 0
        for row, position in enumerate(self.positions):
            req = batch.reqs[position]
            commit, trace = commits[position], trace_of(req)
            if commit is None or trace is None or trace.state.phase is not Phase.THINKING:
                continue
            trace.commit(
                commit.token_ids[0],
                ids[row],
                weights[row],
                entropy[row],
                proposal[row],
                allowed[row],
            )
            if metrics_for(req) is not None:
                counted.append(entropy[row])
                cold_stops += trace.state.cold_stopped
        metrics = active_metrics()
        if metrics is not None:
            metrics.steps_committed(counted, cold_stops)
