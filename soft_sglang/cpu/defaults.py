"""Server arguments that suit a CPU, for those that the user leaves open."""

from typing import Any

KV_BUDGET_BYTES = 1 << 30
MAX_KV_TOKENS = 1 << 17
MIN_KV_TOKENS = 1 << 12
MAX_RUNNING_REQUESTS = 64


def cpu_defaults(model_path: str) -> dict[str, Any]:
    """Arguments for the CPU engine, by the names of ServerArgs.

    SGLang would give half of the machine's memory to the key-value pool; this gives it 1 GiB. And
    its scheduler would keep a core busy while it waits for requests.
    """
    return {
        "device": "cpu",
        "attention_backend": "torch_native",
        "max_total_tokens": kv_tokens(model_path),
        "mem_fraction_static": 0.5,  # an upper limit; SGLang's own guess can be negative
        "max_running_requests": MAX_RUNNING_REQUESTS,
        "sleep_on_idle": True,
    }


def kv_tokens(model_path: str) -> int:
    """Number of tokens whose key-value pairs fit the budget, as float32 and unsharded."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=False)
    except (OSError, ValueError):
        return MIN_KV_TOKENS  # a model that only SGLang can read; it says what is wrong with it
    config = config.get_text_config()
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    token_bytes = 2 * config.num_hidden_layers * kv_heads * head_dim * 4
    return max(MIN_KV_TOKENS, min(MAX_KV_TOKENS, KV_BUDGET_BYTES // token_bytes))
