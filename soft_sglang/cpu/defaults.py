"""Server arguments that suit a CPU, for those that the user leaves open."""

from typing import Any

KV_BUDGET_BYTES = 1 << 30
MAX_KV_TOKENS = 1 << 17
MIN_KV_TOKENS = 1 << 12
MAX_RUNNING_REQUESTS = 64


def cpu_defaults(model_path: str) -> dict[str, Any]:
    """Arguments for the CPU engine, by the names of ServerArgs.

    SGLang would give half of the machine's memory to the key-value pool; this gives it 1 GiB. Its
    scheduler would keep a core busy while it waits for requests. And it would run a float32
    checkpoint in float16, which is slower on most CPUs, and coarse enough that a soft request's
    trace depends on its neighbours.
    """
    config = _text_config(model_path)
    return {
        "device": "cpu",
        "attention_backend": "torch_native",
        "dtype": "float32" if config is not None and _is_float32(config) else "auto",
        "max_total_tokens": MIN_KV_TOKENS if config is None else kv_tokens(config),
        "mem_fraction_static": 0.5,  # an upper limit; SGLang's own guess can be negative
        "max_running_requests": MAX_RUNNING_REQUESTS,
        "sleep_on_idle": True,
    }


def kv_tokens(config: Any) -> int:
    """Number of tokens whose key-value pairs fit the budget, as float32 and unsharded."""
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    token_bytes = 2 * config.num_hidden_layers * kv_heads * head_dim * 4
    return max(MIN_KV_TOKENS, min(MAX_KV_TOKENS, KV_BUDGET_BYTES // token_bytes))


def _text_config(model_path: str) -> Any:
    """The language model's config; None for a model that only SGLang can read."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=False)
    except (OSError, ValueError):
        return None  # SGLang says what is wrong with it, if anything
    return config.get_text_config()


def _is_float32(config: Any) -> bool:
    return str(getattr(config, "dtype", None)).removeprefix("torch.") == "float32"
