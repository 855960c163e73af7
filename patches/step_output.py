"""A step's result on its way to the scheduler: an auxiliary output of SGLang's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from soft_sglang.concept_sampler import StepOutput
from soft_sglang.patches.request import trace_of


@dataclass(frozen=True)
class DeviceOutput:
    """Fresh tensors on the device; SGLang copies them asynchronously with the sampled ids."""

    positions: Sequence[int]
    """Rows of the batch, as in the plan."""
    output: StepOutput

    def copy_to_host(self, copy_tensor: Callable[[torch.Tensor], torch.Tensor]) -> "HostOutput":
        """Start the copy."""
        return HostOutput(self.positions, StepOutput(*(copy_tensor(t) for t in self.output)))


@dataclass(frozen=True)
class HostOutput:
    """The same on the host."""

    positions: Sequence[int]
    output: StepOutput

    def consume(self, batch: Any, commits: Sequence[Any]) -> None:
        """Record the committed steps in the requests' traces.

        ``commits[i]`` is None for a row whose token was not committed: retracted, finished before,
        or in the middle of its prefill.
        """
        ids, weights = self.output.ids.numpy(), self.output.weights.numpy()
        entropy = self.output.entropy.tolist()
        proposal = self.output.proposal.tolist()
        allowed = self.output.think_end_allowed.tolist()
        for row, position in enumerate(self.positions):
            commit, trace = commits[position], trace_of(batch.reqs[position])
            if commit is not None and trace is not None:
                trace.commit(
                    commit.token_ids[0],
                    ids[row],
                    weights[row],
                    entropy[row],
                    proposal[row],
                    allowed[row],
                )
