"""Sampler: thinking rows get concepts, answering rows their own parameters."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from soft_sglang.concept_sampler import BatchPlan, ConceptStep, Sampling
from soft_sglang.concept_table import ConceptTable
from soft_sglang.kernels.concept_step import Concepts
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.step_output import DeviceOutput

_ATTRIBUTE = "soft_thinking_step"


class SamplingStep:
    """The soft part of one call of SGLang's sampler."""

    active: "SamplingStep | None" = None
    """The step whose sampler call is running; for the hook that cannot reach it otherwise."""

    def __init__(self, table: ConceptTable, plan: BatchPlan, slots: torch.Tensor) -> None:
        self._step = ConceptStep(table, plan, slots)
        self._sampling: Sampling | None = None

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

    def phase_view(self, sampling_info: Any) -> Any:
        """The sampling info with each row's parameters for its phase."""
        own = Sampling(*(getattr(sampling_info, name) for name in Sampling._fields))
        self._sampling = self._step.answer_sampling(own)
        if self._sampling is own:
            return sampling_info
        view = copy.copy(sampling_info)
        for name, value in self._sampling._asdict().items():
            setattr(view, name, value)
        return view

    def think(self, logits: torch.Tensor, agree: Callable[[Concepts], Concepts] | None) -> None:
        """Compute the concepts from preprocessed logits ``[B, V]``."""
        assert self._sampling is not None
        self._step.think(logits, self._sampling, agree)

    def final_ids(self, sampled: torch.Tensor) -> torch.Tensor:
        """The sampled ids with those of thinking rows replaced."""
        return self._step.final_ids(sampled)

    def report_to(self, logits_output: Any) -> None:
        """Send the step's concepts to the scheduler with the batch's result."""
        from sglang.srt.managers.auxiliary_output import append_auxiliary_output

        assert self._step.output is not None
        logits_output.auxiliary_device_output = append_auxiliary_output(
            logits_output.auxiliary_device_output,
            DeviceOutput(self._step.plan.positions, self._step.output),
        )


def _step_of(sampling_info: Any) -> SamplingStep | None:
    step: SamplingStep | None = getattr(sampling_info, _ATTRIBUTE, None)
    return step


@patch(
    "layers.sampler.Sampler.forward",
    When.AROUND,
    why="Thinking rows emit the heaviest token of their concept, not a sampled one.",
    how="Samples with each row's parameters for its phase, then replaces the thinking rows' ids.",
    upstream="register_sampler_backend changes the backend for every request.",
    fingerprint="cda5191757d6cc99",
)
def replace_ids(
    original: Callable[..., torch.Tensor],
    self: Any,
    logits_output: Any,
    sampling_info: Any,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Sample a batch."""
    step = _step_of(sampling_info)
    if step is None:
        return original(self, logits_output, sampling_info, *args, **kwargs)
    view = step.phase_view(sampling_info)
    return step.final_ids(original(self, logits_output, view, *args, **kwargs))


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
        step.think(logits, _agreement(self, sampling_info))


def _agreement(sampler: Any, sampling_info: Any) -> Callable[[Concepts], Concepts] | None:
    """How ranks agree on concepts, where SGLang makes them agree on ids too; else None."""
    from sglang.srt.layers.sampler import SYNC_TOKEN_IDS_ACROSS_TP

    group = sampler.tp_sync_group
    if not (SYNC_TOKEN_IDS_ACROSS_TP or sampling_info.grammars) or group.size() == 1:
        return None

    def take_from_first_rank(concepts: Concepts) -> Concepts:
        first = torch.distributed.get_global_rank(group, 0)
        agreed = Concepts(*(tensor.contiguous() for tensor in concepts))
        for tensor in agreed:
            torch.distributed.broadcast(tensor, src=first, group=group)
        return agreed

    return take_from_first_rank
