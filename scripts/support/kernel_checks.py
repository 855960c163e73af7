"""Whether what is timed is right: one result of each case against its reference."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F

from soft_sglang.kernels.concept_step import filtered, top_candidates
from soft_sglang.kernels.thinking_step import StepResult, thinking_step_torch
from support.kernel_cases import SETTINGS, EmbeddingCase, EmbeddingInputs, StepCase, StepInputs

WEIGHT_ERROR = 2e-5
ENTROPY_ERROR = 1e-4
"""Relative above 1 nat."""
DIFFERING_ROWS = 0.01
"""Share of rows in which rounding may move a token across a filter's threshold."""
EMBEDDING_ERROR = 5e-3
"""Relative: the result's rounding to bfloat16."""

Check = tuple[dict[str, float], str]
"""Measured differences, and what is out of tolerance."""


@contextmanager
def poisoned() -> Iterator[None]:
    """``torch.empty`` is filled with NaN and the largest integers meanwhile."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def check_step(
    case: StepCase, inputs: StepInputs, run: Callable[[torch.Tensor], StepResult]
) -> Check:
    """Compare a step on the first of the inputs' logits with the reference."""
    logits, slots, table = inputs.logits[0], inputs.slots, inputs.table
    thinking = case.phase == "thinking"
    width = inputs.plan.width
    table.ids[slots], table.weights[slots] = -7, torch.nan
    reference_table = type(table)(*(column.clone() for column in table))
    step_before = table.step[slots]
    with poisoned():
        result = run(logits)
    reference = thinking_step_torch(
        logits, inputs.sampling, reference_table, slots, None, inputs.plan, torch.zeros_like(slots)
    )
    weight_error = (result.weights - reference.weights).abs().nan_to_num(1.0).amax(dim=-1)
    differs = (result.ids != reference.ids).any(dim=-1) | (weight_error > WEIGHT_ERROR)
    differs |= result.proposal != reference.proposal
    differs |= result.end_allowed != reference.end_allowed
    scale = reference.entropy.clamp_min(1.0)
    entropy_error = ((result.entropy - reference.entropy).abs() / scale).nan_to_num(1.0)
    if thinking:
        differs |= result.token != reference.token
        differs |= (table.ids[slots, :width] != result.ids).any(dim=-1)
        differs |= (table.weights[slots, :width] != result.weights).any(dim=-1)
        differs |= table.step[slots] != step_before + 1
    else:
        differs |= ~_in_support(result.token, logits, inputs, case)
        differs |= table.step[slots] != step_before
    rows = int(differs.sum())
    same = weight_error[~differs]
    errors = {
        "differing_rows": float(rows),
        "weights": float(same.max()) if same.numel() else 0.0,
        "entropy": float(entropy_error.max()),
    }
    wrong = []
    if rows > DIFFERING_ROWS * case.batch:
        wrong.append(f"{rows} of {case.batch} rows")
    if errors["entropy"] > ENTROPY_ERROR:
        wrong.append(f"entropy by {errors['entropy']:.1e}")
    return errors, ", ".join(wrong)


def _in_support(
    token: torch.Tensor, logits: torch.Tensor, inputs: StepInputs, case: StepCase
) -> torch.Tensor:
    """Which of the sampled tokens the filters leave in."""
    exists = (token >= 0) & (token < case.vocab)
    setting, sampling, plan = SETTINGS[case.setting], inputs.sampling, inputs.plan
    if setting.top_k >= case.vocab:
        return exists
    temperature = sampling.temperatures.view(-1)
    p, ids, mass, _ = top_candidates(logits, temperature, plan.candidates)
    filters = sampling.top_ks, sampling.top_ps, sampling.min_ps
    kept = filtered(p, mass, *filters, case.vocab, sampling.joint(plan.joint_filters)) > 0
    return exists & ((ids == token[:, None]) & kept).any(dim=-1)


def check_embedding(
    case: EmbeddingCase, inputs: EmbeddingInputs, run: Callable[[torch.Tensor], torch.Tensor]
) -> Check:
    """Compare the embeddings of the first of the inputs with float64, or with ``F.embedding``."""
    out = inputs.table.new_full((case.batch, case.dim), torch.nan)
    result = run(out)
    if case.weights == "one" or case.width == 1:
        plain = F.embedding(inputs.input_ids[0], inputs.table)
        different = int((result != plain).any(dim=-1).sum())
        return {"differing_rows": float(different)}, f"{different} rows" if different else ""
    ids, weights = (values[0][inputs.slots[0]] for values in (inputs.ids, inputs.weights))
    reference = torch.zeros(case.batch, case.dim, dtype=torch.float64, device=result.device)
    for k in range(case.width):
        rows = F.embedding(ids[:, k], inputs.table).double()
        reference += rows * weights[:, k, None].double()
    error = float((result.double() - reference).norm() / reference.norm())
    return {"relative": error}, "" if error < EMBEDDING_ERROR else f"relative error {error:.1e}"
