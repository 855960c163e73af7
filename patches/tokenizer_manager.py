"""Tokenizer manager: reads what a request asks for, and assembles its answer."""

import copy
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from soft_sglang.answer import accumulate, chunk
from soft_sglang.parameters import FLAT_NAMES, REQUEST_KEY, WIRE_KEY, read_request
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.server_args import options_of

_INT64 = 1 << 63
_ANSWER = "soft_thinking"
"""Attribute of a request's state that holds its accumulated answer."""


@patch(
    "managers.tokenizer_manager.TokenizerManager._create_tokenized_object",
    When.BEFORE,
    why="Every route passes here with its raw sampling parameters; unknown keys would be an error.",
    how=(
        "Takes the plugin's keys out, validates them, and leaves the complete parameters in "
        "custom_params as a flat dict."
    ),
    upstream="A plugin hook for sampling parameters would replace it.",
    fingerprint="f0002ea6cbbf73a7",
)
def resolve_request(self: Any, obj: Any, *args: Any, **kwargs: Any) -> None:
    """Replace the raw parameters of soft thinking by complete ones."""
    sampling = {**_preferred(self), **(obj.sampling_params or {})}
    flat = {name: sampling.pop(name) for name in FLAT_NAMES & sampling.keys()}
    outer = sampling.pop(REQUEST_KEY, None)
    inner = None
    custom = sampling.get("custom_params")
    if isinstance(custom, dict) and custom.keys() & {REQUEST_KEY, WIRE_KEY}:
        inner = custom.get(REQUEST_KEY)
        custom = {k: v for k, v in custom.items() if k not in (REQUEST_KEY, WIRE_KEY)}
        sampling["custom_params"] = custom or None
    obj.sampling_params = sampling
    if not hasattr(obj, "return_logprob"):  # an embedding request
        return
    if inner is not None and outer is not None and inner != outer:
        raise ValueError(
            f"{REQUEST_KEY} is given twice: in sampling_params and in custom_params; give it once."
        )
    flat = {name: value for name, value in flat.items() if value is not None}
    soft = read_request(inner if outer is None else outer, flat, options_of(self.server_args))
    if soft is None:
        return
    if custom is not None and not isinstance(custom, dict):
        raise ValueError(f"custom_params must be an object, got {type(custom).__name__}.")
    reason = getattr(self, "soft_thinking_unsupported", None)
    if reason is not None:
        raise ValueError(f"{REQUEST_KEY} is not available: {reason}.")
    _refuse_unsupported(obj, sampling)
    seed = sampling.get("sampling_seed")
    params = soft.resolve(
        think_end_id=think_end_id(self, soft.think_end_str),
        seed=secrets.randbelow(_INT64) if seed is None else _checked_seed(seed),
        own=sampling,
    )
    sampling["custom_params"] = {**(custom or {}), WIRE_KEY: params.to_wire()}


def _preferred(manager: Any) -> dict[str, Any]:
    """The server's preferred sampling parameters, ours included; SGLang keeps only its own."""
    if not hasattr(manager, "soft_thinking_preferred"):
        preferred = dict(manager.preferred_sampling_params or {})
        manager.soft_thinking_preferred = preferred
        own = {k: v for k, v in preferred.items() if k != REQUEST_KEY and k not in FLAT_NAMES}
        manager.preferred_sampling_params = own or None
    result: dict[str, Any] = manager.soft_thinking_preferred
    return result


@patch(
    "managers.tokenizer_manager.TokenizerManager._send_one_request",
    When.BEFORE,
    why="The n samples of a request share one parameter object, and would share their noise.",
    how="Sample i is sent with the seed plus i.",
    upstream="Not applicable.",
    fingerprint="ea04c3f5ade420f4",
)
def number_samples(self: Any, tokenized_obj: Any) -> None:
    """Give every sample of a request its own noise seed."""
    sampling: Any = tokenized_obj.sampling_params
    custom = sampling.custom_params
    shared = custom.get(WIRE_KEY) if isinstance(custom, dict) else None
    if shared is None or sampling.n == 1 or sampling.max_new_tokens == 0:
        return
    own = copy.copy(sampling)
    own.custom_params = {**custom, WIRE_KEY: dict(shared)}
    tokenized_obj.sampling_params = own
    shared["seed"] = _wrapped(shared["seed"] + 1)


@patch(
    "managers.tokenizer_manager.TokenizerManager.update_request_meta_info",
    When.AROUND,
    why="SGLang's accumulation expects one entry per token; the scheduler sends reports.",
    how="Accumulates the reports on the request's state and puts the whole into meta_info.",
    upstream="Not applicable.",
    fingerprint="acccc58e0ca8eb2f",
)
def collect_report(
    original: Callable[..., None],
    self: Any,
    meta_info: dict[str, Any],
    state: Any,
    customized_info: dict[str, list[Any]],
    index: int,
    finish_reason: dict[str, Any] | None,
) -> None:
    """Accumulate the report of one request."""
    others = {name: value for name, value in customized_info.items() if name != REQUEST_KEY}
    original(self, meta_info, state, others, index, finish_reason)
    reports = customized_info.get(REQUEST_KEY)
    report = None if reports is None else reports[index]
    answer = getattr(state, _ANSWER, None)
    if report is not None:
        answer = accumulate(answer, report)
        setattr(state, _ANSWER, answer)
    if answer is not None:
        meta_info[REQUEST_KEY] = answer


@patch(
    "managers.tokenizer_manager.TokenizerManager.generate_request",
    When.AROUND,
    why=(
        "A stream's chunk carries only its own steps, and chunks may be dropped or merged on "
        "their way here."
    ),
    how="Cuts each chunk's part out of the accumulated answer where it leaves the manager.",
    upstream="Not applicable.",
    fingerprint="c230e6cc6990aa64",
)
async def cut_chunks(
    original: Callable[..., AsyncGenerator[Any, None]], self: Any, obj: Any, request: Any = None
) -> AsyncGenerator[Any, None]:
    """Give every chunk of a stream its own part of the answer."""
    told: dict[int, int] = {}
    pending = getattr(obj, "soft_thinking_chunks", None)
    async with aclosing(original(self, obj, request)) as outputs:
        async for output in outputs:
            if isinstance(output, dict) and getattr(obj, "stream", False):
                answer = output["meta_info"].get(REQUEST_KEY)
                if answer is not None:
                    index = output.get("index", 0)
                    part, told[index] = chunk(answer, told.get(index, 0))
                    output["meta_info"] = {**output["meta_info"], REQUEST_KEY: part}
                    if pending is not None:
                        pending[index] = accumulate(pending.get(index), part)
            yield output


def _refuse_unsupported(obj: Any, sampling: dict[str, Any]) -> None:
    refused = {
        "beam_width above 1": (sampling.get("beam_width") or 1) != 1,
        "input_embeds": obj.input_embeds is not None,
        "positional_embed_overrides": obj.positional_embed_overrides is not None,
        "session_params": obj.session_params is not None or obj.session_id is not None,
        "return_sampling_mask": bool(obj.return_sampling_mask),
    }
    for what, present in refused.items():
        if present:
            raise ValueError(
                f"{REQUEST_KEY} cannot be combined with {what}; remove it, or set "
                f"{REQUEST_KEY} to false."
            )


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not -_INT64 <= seed < _INT64:
        raise ValueError(f"sampling_seed must be an integer in [-2**63, 2**63 - 1], got {seed!r}.")
    return seed


def _wrapped(seed: int) -> int:
    return (seed + _INT64) % (2 * _INT64) - _INT64


def think_end_id(manager: Any, text: str) -> int:
    """Id of the think-end token.

    Raises:
        ValueError: the string is not one token of the vocabulary, or there is no tokenizer.
    """
    tokenizer = manager.tokenizer
    if tokenizer is None:
        raise ValueError(f"{REQUEST_KEY} needs a tokenizer; the server runs without one.")
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    problem = None
    if len(ids) != 1:
        problem = f"{len(ids)} tokens"
    elif ids[0] == getattr(tokenizer, "unk_token_id", None):
        problem = "unknown"
    elif ids[0] >= manager.model_config.vocab_size:
        problem = "beyond the model's vocabulary"
    if problem is not None:
        raise ValueError(
            f"think_end_str must be one token of the vocabulary, but {text!r} is {problem}."
        )
    return ids[0]
