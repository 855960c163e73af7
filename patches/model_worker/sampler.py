"""Sampler: thinking rows get concepts, answering rows their own parameters."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from soft_sglang.concept_sampler import BatchPlan, ConceptStep
from soft_sglang.concept_table import AnswerSampling, ConceptTable
from soft_sglang.kernels.sampling import Sampling
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.step_output import DeviceOutput, RelayedOutput
from soft_sglang.patches.versions import widen_top_k
from soft_sglang.relayed_step import pack
from soft_sglang.row_parameters import TOP_K_OFF


class SoftSampler:
    """Wraps the sampler of one model runner."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.step: SamplingStep | None = None
        """Of the call that is running; set and reset by :meth:`taking`, read by the hooks."""
        sample.override(sampler, self)
        think.override(sampler, self)
        use_final_ids.override(sampler.output_logprob_processor, self)

    @contextmanager
    def taking(self, step: "SamplingStep") -> Iterator[None]:
        """Make the sampler take a step."""
        self.step = step
        try:
            yield
        finally:
            self.step = None


class SamplingStep:
    """The soft part of one call of SGLang's sampler."""

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
        answers = self._step.plan.answers
        if not answers:
            return sampling_info
        view = copy.copy(sampling_info)
        sampling = self._step.answer_sampling(_sampling_of(sampling_info))
        for name, value in sampling._asdict().items():
            setattr(view, name, value)
        for answer in answers:
            _cover(view, answer)
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

    def emit(self, sampled: torch.Tensor | None) -> torch.Tensor:
        """The batch's ids, as the requests emit them; the step ends with this."""
        ids = self.final_ids(sampled)
        self._step.rethink(ids)
        return ids

    def report_to(self, logits_output: Any, *, relayed: bool) -> None:
        """Send the step's concepts to the scheduler with the batch's result.

        Args:
            logits_output: of the batch.
            relayed: another process embeds them.
        """
        from sglang.srt.managers.auxiliary_output import append_auxiliary_output

        step = self._step
        assert step.output is not None
        report: DeviceOutput | RelayedOutput
        if relayed:  # packed here: SGLang's event for whoever sends it comes before it asks for it
            report = RelayedOutput(step.plan, pack(*step.written()))
        else:
            report = DeviceOutput.of(step.plan, step.output, step.guided)
        logits_output.auxiliary_device_output = append_auxiliary_output(
            logits_output.auxiliary_device_output, report
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


def _cover(sampling_info: Any, answer: AnswerSampling) -> None:
    """Make the host's flags hold for rows that are sampled like ``answer`` too."""
    unfiltered = answer.top_k >= TOP_K_OFF
    sampling_info.is_all_greedy &= answer.top_k <= 1
    sampling_info.is_any_greedy |= answer.top_k <= 1
    sampling_info.need_top_p_sampling |= answer.top_p != 1.0
    sampling_info.need_top_k_sampling |= not unfiltered
    sampling_info.need_min_p_sampling |= answer.min_p > 0
    widen_top_k(sampling_info, None if unfiltered else answer.top_k)


@patch(
    "layers.sampler.Sampler.forward",
    When.OVERRIDE,
    why="Thinking rows emit the heaviest token of their concept, not a sampled one.",
    how=(
        "Lets the concept step sample every row where that is exact. Otherwise samples with each "
        "row's parameters for its phase, and replaces the thinking rows' ids."
    ),
    upstream="register_sampler_backend changes the backend for every request.",
)
def sample(
    original: Callable[..., torch.Tensor],
    soft: SoftSampler,
    logits_output: Any,
    sampling_info: Any,
    return_logprob: bool,
    *args: Any,
    **kwargs: Any,
) -> torch.Tensor:
    """Sample a batch."""
    step = soft.step
    if step is None:
        return original(logits_output, sampling_info, return_logprob, *args, **kwargs)
    if step.replaces(soft.sampler, sampling_info, return_logprob):
        soft.sampler._preprocess_logits(logits_output.next_token_logits, sampling_info)
        return step.emit(None)
    view = step.phase_view(sampling_info)
    return step.emit(original(logits_output, view, return_logprob, *args, **kwargs))


@patch(
    "layers.sampler.Sampler._preprocess_logits",
    When.OVERRIDE,
    why=(
        "Concepts come from the logits after penalties, bias, grammar mask and custom processors, "
        "and before the sampler divides them by the temperature in place."
    ),
    how="Computes the concept step here.",
    upstream="Not applicable.",
)
def think(
    original: Callable[..., torch.Tensor],
    soft: SoftSampler,
    logits: torch.Tensor,
    sampling_info: Any,
) -> torch.Tensor:
    """Compute the concepts of a batch."""
    logits = original(logits, sampling_info)
    if soft.step is not None:
        soft.step.think(logits, sampling_info, _agreement(soft.sampler, sampling_info))
    return logits


@patch(
    "layers.logprob_processor.OutputLogprobProcessor.compute_logprobs",
    When.OVERRIDE,
    why="The sampler computes them before the thinking rows' ids are replaced.",
    how="Replaces the ids here too.",
    upstream="Not applicable.",
)
def use_final_ids(
    original: Callable[..., Any],
    soft: SoftSampler,
    logprobs: torch.Tensor,
    top_logprobs_nums: list[int],
    token_ids_logprobs: list[list[int]],
    batch_next_token_ids: torch.Tensor,
) -> Any:
    """Compute the log-probabilities of the ids that are emitted."""
    ids = batch_next_token_ids
    if soft.step is not None:
        ids = soft.step.final_ids(ids)
    return original(logprobs, top_logprobs_nums, token_ids_logprobs, ids)


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
