"""Sampler: thinking rows get concepts, answering rows their own parameters."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from soft_sglang.concept_sampler import BatchPlan, ConceptStep
from soft_sglang.concept_table import ConceptTable
from soft_sglang.kernels.sampling import Sampling
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.step_output import DeviceOutput, GuidedOutput

_ATTRIBUTE = "soft_thinking_step"


class SamplingStep:
    """The soft part of one call of SGLang's sampler."""

    active: "SamplingStep | None" = None
    """The step whose sampler call is running; for the hook that cannot reach it otherwise."""

    def __init__(
        self,
        table: ConceptTable,
        plan: BatchPlan,
        slots: torch.Tensor,
        hidden: torch.Tensor | None = None,
    ) -> None:
        self._step = ConceptStep(table, plan, slots)
        self._plan = plan.step
        self._hidden = hidden

    @contextmanager
    def attached_to(self, sampling_info: Any) -> Iterator[None]:
        """Attach the step for one call of the sampler."""
        setattr(sampling_info, _ATTRIBUTE, self)
        SamplingStep.active = self
        try:
            yield
        finally:
            SamplingStep.active = None
            delattr(sampling_info, _ATTRIBUTE)

    def replaces(self, sampler: Any, sampling_info: Any, return_logprob: bool) -> bool:
        """Whether SGLang's own sampler need not run; decides what :meth:`think` computes."""
        samples = (
            self._plan.samples
            and not return_logprob
            and is_plain_sampling(sampler, _backend(), sampling_info)
        )
        # flashinfer's samplers renormalise after top-k where there is a min-p
        joint = _backend() != "flashinfer"
        self._plan = replace(self._plan, samples=samples, joint_filters=joint)
        return samples

    def phase_view(self, sampling_info: Any) -> Any:
        """The sampling info with each row's parameters for its phase."""
        own = _sampling_of(sampling_info)
        sampling = self._step.answer_sampling(own)
        if sampling is own:
            return sampling_info
        view = copy.copy(sampling_info)
        for name, value in sampling._asdict().items():
            setattr(view, name, value)
        return view

    def think(
        self,
        logits: torch.Tensor,
        sampling_info: Any,
        agree: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> None:
        """Compute the concepts from preprocessed logits ``[B, V]``."""
        self._step.think(logits, _sampling_of(sampling_info), self._plan, agree, self._hidden)

    def final_ids(self, sampled: torch.Tensor | None) -> torch.Tensor:
        """The batch's ids: those of another sampler with those of thinking rows replaced."""
        return self._step.final_ids(sampled)

    def report_to(self, logits_output: Any) -> None:
        """Send the step's concepts to the scheduler with the batch's result."""
        from sglang.srt.managers.auxiliary_output import append_auxiliary_output

        assert self._step.output is not None
        logits_output.auxiliary_device_output = append_auxiliary_output(
            logits_output.auxiliary_device_output,
            DeviceOutput(
                self._step.plan.positions,
                self._step.output,
                tuple(
                    GuidedOutput(plan.positions, result)
                    for plan, result in zip(self._step.plan.guided, self._step.guided, strict=True)
                ),
            ),
        )


def is_plain_sampling(sampler: Any, backend: str, sampling_info: Any) -> bool:
    """Whether SGLang's sampler does for a batch what the concept step can do in its place."""
    from sglang.srt.layers.sampler import Sampler

    return (
        type(sampler) is Sampler
        and backend in ("pytorch", "flashinfer")
        and sampler.rl_on_policy_target is None
        and sampling_info.sampling_seed is None  # its numbers are SGLang's to draw
        and sampling_info.sampling_mask_batch_indices is None
    )


def _sampling_of(sampling_info: Any) -> Sampling:
    return Sampling(*(getattr(sampling_info, name) for name in Sampling._fields))


def _backend() -> str:
    from sglang.srt.runtime_context import get_exec

    backend: str = get_exec().kernel.sampling_backend
    return backend


def _step_of(sampling_info: Any) -> SamplingStep | None:
    step: SamplingStep | None = getattr(sampling_info, _ATTRIBUTE, None)
    return step


@patch(
    "layers.sampler.Sampler.forward",
    When.AROUND,
    why="Thinking rows emit the heaviest token of their concept, not a sampled one.",
    how=(
        "Lets the concept step sample every row where that is exact. Otherwise samples with each "
        "row's parameters for its phase, and replaces the thinking rows' ids."
    ),
    upstream="register_sampler_backend changes the backend for every request.",
    fingerprint="cda5191757d6cc99",
)
def replace_ids(
    original: Callable[..., torch.Tensor],
    self: Any,
    logits_output: Any,
    sampling_info: Any,
    return_logprob: bool,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Sample a batch."""
    step = _step_of(sampling_info)
    if step is None:
        return original(self, logits_output, sampling_info, return_logprob, *args, **kwargs)
    if step.replaces(self, sampling_info, return_logprob):
        self._preprocess_logits(logits_output.next_token_logits, sampling_info)
        return step.final_ids(None)
    view = step.phase_view(sampling_info)
    return step.final_ids(original(self, logits_output, view, return_logprob, *args, **kwargs))


@patch(
    "layers.sampler.Sampler._preprocess_logits",
    When.AFTER,
    why=(
        "Concepts come from the logits after penalties, bias, grammar mask and custom processors, "
        "and before the sampler divides them by the temperature in place."
    ),
    how="Computes the concept step here.",
    upstream="Not applicable.",
    fingerprint="510aab35bf494675",
)
def think(logits: torch.Tensor, self: Any, _logits: torch.Tensor, sampling_info: Any) -> None:
    """Compute the concepts of a batch."""
    step = _step_of(sampling_info)
    if step is not None:
        step.think(logits, sampling_info, _agreement(self, sampling_info))


def _agreement(sampler: Any, sampling_info: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """How ranks agree on a step, where SGLang makes them agree on ids too; else None."""
    from sglang.srt.layers.sampler import SYNC_TOKEN_IDS_ACROSS_TP

    group = sampler.tp_sync_group
    if not (SYNC_TOKEN_IDS_ACROSS_TP or sampling_info.grammars) or group.size() == 1:
        return None

    def take_from_first_rank(tensor: torch.Tensor) -> torch.Tensor:
        agreed = tensor.contiguous()
        first = torch.distributed.get_global_rank(group, 0)
        torch.distributed.broadcast(agreed, src=first, group=group)
        return agreed

    return take_from_first_rank
