"""Batched decoding over `inputs_embeds` with a KV cache: greedy, sampled, soft, soft with noise."""

from dataclasses import dataclass
from enum import Enum

import torch
from concepts import concept, filtered, gumbel_softmax
from torch import Tensor
from transformers import DynamicCache, Qwen3ForCausalLM


class Mode(Enum):
    """How the thinking phase is decoded; the answer is sampled in all but `GREEDY`."""

    GREEDY = "greedy"
    SAMPLED = "sampled"
    SOFT = "soft"
    SOFT_GUMBEL = "soft + Gumbel noise"


@dataclass(frozen=True)
class Decoder:
    """Decodes prompts of equal length with one model.

    Cold Stop is left out: its usual threshold of 256 low-entropy steps is several times the
    length of a thought of this model.
    """

    model: Qwen3ForCausalLM
    think_end: int
    eos: int
    temperature: float = 0.6
    gumbel_tau: float = 0.5
    max_new_tokens: int = 96

    @torch.inference_mode()
    def __call__(self, prompts: Tensor, mode: Mode, seed: int) -> Tensor:
        """Continues prompts [n, length], which end in ``<think>``.

        Returns ids [n, at most max_new_tokens]; a finished row repeats `eos`.
        """
        generator = torch.Generator().manual_seed(seed)
        table = self.model.get_input_embeddings().weight
        soft = mode in (Mode.SOFT, Mode.SOFT_GUMBEL)
        thinking = torch.ones(len(prompts), dtype=torch.bool)
        finished = torch.zeros_like(thinking)
        cache = DynamicCache()
        inputs, output = table[prompts], []
        for _ in range(self.max_new_tokens):
            result = self.model(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
            logits = result.logits[:, -1].float()
            probabilities = torch.softmax(logits / self.temperature, dim=-1)
            if mode is Mode.GREEDY:
                ids = logits.argmax(-1)
            else:
                ids = filtered(probabilities).multinomial(1, generator=generator)[:, 0]
            if soft:
                weights = concept(probabilities)
                if mode is Mode.SOFT_GUMBEL:
                    weights = gumbel_softmax(weights, self.gumbel_tau, generator)
                ids = torch.where(thinking, weights.argmax(-1), ids)
            ids = torch.where(finished, self.eos, ids)
            output.append(ids)
            thinking &= ids != self.think_end
            finished |= ids == self.eos
            if finished.all():
                break
            inputs = table[ids]
            if soft:
                inputs = torch.where(thinking[:, None], weights @ table, inputs)
            inputs = inputs[:, None]
        return torch.stack(output, dim=1)
