"""Tokenizer manager, requests: reads what a request asks for."""

import copy
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from soft_sglang.carriers import agreed, is_asked
from soft_sglang.markers import Vocabulary
from soft_sglang.parameters import FLAT_NAMES, REQUEST_KEY, WIRE_KEY, read_request
from soft_sglang.patches.front_end.asking import asked_field
from soft_sglang.patches.front_end.unsupported_requests import refuse_unsupported
from soft_sglang.patches.options import options_of
from soft_sglang.patches.record import When, patch

_INT64 = 1 << 63


@patch(
    "managers.tokenizer_manager.TokenizerManager._create_tokenized_object",
    When.AROUND,
    why=(
        "Every route passes here with its raw sampling parameters; unknown keys would be an error, "
        "and other values of a wrong type answer with a 500."
    ),
    how=(
        "Takes the plugin's keys out, validates them, and leaves the complete parameters in "
        "custom_params as a flat dict. A TypeError of SGLang's own validation becomes a 400."
    ),
    upstream="A plugin hook for sampling parameters would replace it.",
)
def tokenize(
    original: Callable[..., Any],
    self: Any,
    obj: Any,
    input_text: Any,
    input_ids: Sequence[int] | None,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Build the message to the scheduler."""
    resolve_request(self, obj, () if input_ids is None else input_ids)
    try:
        return original(self, obj, input_text, input_ids, *args, **kwargs)
    except TypeError as error:
        raise InvalidTypeError(f"sampling_params: {error}.") from error


class InvalidTypeError(ValueError, TypeError):
    """A request's parameter has a wrong type: a 400, and still the TypeError of SGLang's Engine."""


def resolve_request(self: Any, obj: Any, prompt: Sequence[int]) -> None:
    """Replace the raw parameters of soft thinking by complete ones; ``prompt``: token ids."""
    own = obj.sampling_params or {}
    sampling = {**_preferred(self), **own}
    flat = {name: sampling.pop(name) for name in FLAT_NAMES & sampling.keys()}
    carriers = {
        "the request": asked_field(),
        "sampling_params": own.get(REQUEST_KEY),
    }
    preferred = sampling.pop(REQUEST_KEY, None)
    custom = sampling.get("custom_params")
    if isinstance(custom, dict) and custom.keys() & {REQUEST_KEY, WIRE_KEY}:
        carriers["custom_params"] = custom.get(REQUEST_KEY)
        custom = {k: v for k, v in custom.items() if k not in (REQUEST_KEY, WIRE_KEY)}
        sampling["custom_params"] = custom or None
    obj.sampling_params = sampling
    field = agreed(carriers.items())
    if not hasattr(obj, "return_logprob"):  # an embedding request
        if is_asked(field):
            raise ValueError(f"{REQUEST_KEY} cannot be asked for where nothing is generated.")
        return
    if field is None:
        field = preferred
    flat = {name: value for name, value in flat.items() if value is not None}
    soft = read_request(field, flat, options_of(self.server_args))
    if soft is None:
        return
    if custom is not None and not isinstance(custom, dict):
        raise ValueError(f"custom_params must be an object, got {type(custom).__name__}.")
    refuse_unsupported(obj, sampling, soft, self.server_args)
    seed = sampling.get("sampling_seed")
    params = soft.resolve(
        vocabulary_of(self),
        prompt,
        seed=secrets.randbelow(_INT64) if seed is None else _checked_seed(seed),
        own=sampling,
    )
    if params.is_ordinary and params.separate_answer:
        sampling.update(
            temperature=params.after_thinking_temperature,
            top_p=params.after_thinking_top_p,
            top_k=params.after_thinking_top_k,
            min_p=params.after_thinking_min_p,
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


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not -_INT64 <= seed < _INT64:
        raise ValueError(f"sampling_seed must be an integer in [-2**63, 2**63 - 1], got {seed!r}.")
    return seed


def _wrapped(seed: int) -> int:
    return (seed + _INT64) % (2 * _INT64) - _INT64


def vocabulary_of(manager: Any) -> Vocabulary:
    """The tokens of a tokenizer manager's model.

    Raises:
        ValueError: there is no tokenizer.
    """
    tokenizer, config = manager.tokenizer, manager.model_config
    if tokenizer is None:
        raise ValueError(f"{REQUEST_KEY} needs a tokenizer; the server runs without one.")
    known: Vocabulary | None = getattr(manager, "soft_thinking_vocabulary", None)
    if known is None:
        turn_ends = {tokenizer.eos_token_id, *(config.hf_eos_token_id or ())}
        known = Vocabulary(tokenizer, config.vocab_size, frozenset(turn_ends - {None}))
        manager.soft_thinking_vocabulary = known
    return known
