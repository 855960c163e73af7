"""Makes multi-head latent attention run on a CPU without AMX.

SGLang prefills such models with uncompressed keys and values, which its ``torch_native`` attention
cannot do: it reads them from the cache, and the cache holds latents. The absorbed form, which
SGLang decodes with, it can do. So this registers that form for the prefill too.
"""

from sglang.srt.models.deepseek_common.attention_backend_handler import (
    AttentionBackendRegistry,
    _dispatch_mla_subtype,
)

AttentionBackendRegistry.register("torch_native", _dispatch_mla_subtype)
