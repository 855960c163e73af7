"""A Llama with one more embedding of the token id, as Gemma 3n's: no CPU runs one of SGLang's own.

The layers do not read it, so its discrete outputs are those of the Llama.
"""

from typing import Any

import torch
from sglang.srt.models.llama import LlamaForCausalLM


class PerLayerLlamaForCausalLM(LlamaForCausalLM):
    """What matters is that the table is there."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.model.embed_tokens_per_layer = torch.nn.Embedding(config.vocab_size, 8)


EntryClass = PerLayerLlamaForCausalLM
