"""Grammar: the answer's grammar starts where the request's own thinking ends."""

from collections.abc import Callable
from typing import Any

from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.request import trace_of


@patch(
    "constrained.grammar_manager.GrammarManager._apply_request_reasoning_config",
    When.AFTER,
    why=(
        "The reasoning grammar waits for the reasoning parser's end of thinking. After another "
        "think_end_str the answer would not be constrained at all."
    ),
    how="Tells a soft request's grammar its think-end marker.",
    upstream="SGLang lets a request choose only among the parser's own terminators.",
)
def start_after_own_end(_result: None, self: Any, req: Any) -> None:
    """Let a soft request's grammar start after its own think-end marker."""
    from sglang.srt.constrained.reasoner_grammar_backend import ReasonerGrammarObject

    trace = trace_of(req)
    if trace is not None and isinstance(req.grammar, ReasonerGrammarObject):
        req.grammar.set_request_think_end_ids(trace.params.think_end_ids)


@patch(
    "managers.scheduler_components.batch_result_processor."
    "SchedulerBatchResultProcessor._maybe_update_reasoning_tokens",
    When.AROUND,
    why="As for the grammar: usage.reasoning_tokens would count the answer too.",
    how="Counts a soft request's tokens up to its own think-end marker, or those of every thought.",
    upstream="As for the grammar.",
)
def count_to_own_end(
    original: Callable[..., None], self: Any, req: Any, next_token_id: Any
) -> None:
    """Count the reasoning tokens of one request."""
    trace = trace_of(req)
    if trace is None or not req.require_reasoning:
        original(self, req, next_token_id)
    elif trace.params.think_start_ids:
        req.reasoning_tokens += trace.is_thinking  # the token is not committed yet
    else:
        req.update_reasoning_tokens(next_token_id, trace.params.think_end_ids)
