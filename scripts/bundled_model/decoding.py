"""Batched decoding over `inputs_embeds` with a KV cache: the ways to think that are compared."""

from dataclasses import dataclass

import torch
from concepts import concept, filtered, gumbel_softmax
from torch import Tensor
from transformers import DynamicCache, Qwen3ForCausalLM


@dataclass(frozen=True)
class Arm:
    """How the thinking phase is decoded; the answer is sampled unless `greedy`.

    soft: feed concepts instead of tokens. gumbel: with Gumbel noise on their weights. cold_stop:
    end the thought after `length_threshold` steps in a row below `entropy_threshold` nats.
    """

    name: str
    greedy: bool = False
    soft: bool = False
    gumbel: bool = False
    cold_stop: bool = False


ARMS = (
    Arm("CoT sampling"),
    Arm("CoT greedy", greedy=True),
    Arm("Cold Stop only", cold_stop=True),
    Arm("Soft Thinking", soft=True, cold_stop=True),
    Arm("soft without Cold Stop", soft=True),
    Arm("soft + Gumbel", soft=True, gumbel=True, cold_stop=True),
    Arm("soft + Gumbel without Cold Stop", soft=True, gumbel=True),
)


@dataclass(frozen=True)
class Completions:
    """ids: [n, length] int64; a finished row repeats the end token. forced: [n] bool, the rows
    whose thought Cold Stop ended. entropy: [n, length] fp32, nats, of each step.
    """

    ids: Tensor
    forced: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class Decoder:
    """Decodes prompts with one model. The entropy is that of the whole vocabulary, at
    `temperature`, before any filter, as in the engine.
    """

    model: Qwen3ForCausalLM
    think_end: int
    eos: int
    temperature: float = 0.6
    gumbel_tau: float = 0.5
    entropy_threshold: float = 0.1
    length_threshold: int = 14
    max_new_tokens: int = 512

    @torch.inference_mode()
    def __call__(self, prompts: list[list[int]], arm: Arm, seed: int) -> Completions:
        """Continues prompts that end in ``<think>``."""
        generator = torch.Generator().manual_seed(seed)
        table = self.model.get_input_embeddings().weight
        length = max(map(len, prompts))
        padded = torch.tensor([[self.eos] * (length - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts])
        position = (mask.cumsum(-1) - 1).clamp_min(0)
        thinking = torch.ones(len(prompts), dtype=torch.bool)
        finished, forced = torch.zeros_like(thinking), torch.zeros_like(thinking)
        run = torch.zeros(len(prompts), dtype=torch.int64)
        cache = DynamicCache()
        inputs, ids_out, entropy_out = table[padded], [], []
        for _ in range(self.max_new_tokens):
            result = self.model(
                inputs_embeds=inputs,
                attention_mask=mask,
                position_ids=position,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = result.logits[:, -1].float()
            log_p = torch.log_softmax(logits / self.temperature, dim=-1)
            entropy = -(log_p.exp() * log_p).sum(-1)
            weights, candidates = filtered(log_p.exp())
            drawn = weights.multinomial(1, generator=generator)
            ids = logits.argmax(-1) if arm.greedy else candidates.gather(-1, drawn)[:, 0]
            if arm.soft:
                weights, candidates = concept(log_p.exp())
                if arm.gumbel:
                    weights = gumbel_softmax(weights, self.gumbel_tau, generator)
                heaviest = candidates.gather(-1, weights.argmax(-1, keepdim=True))[:, 0]
                ids = torch.where(thinking, heaviest, ids)
            if arm.cold_stop:
                run = torch.where(entropy < self.entropy_threshold, run + 1, 0)
                stop = thinking & (run >= self.length_threshold) & (ids != self.think_end)
                ids = torch.where(stop, self.think_end, ids)
                forced |= stop
            ids = torch.where(finished, self.eos, ids)
            ids_out.append(ids)
            entropy_out.append(entropy)
            finished |= ids == self.eos
            if finished.all():
                break
            thinking &= (ids != self.think_end) & ~finished
            inputs = table[ids]
            if arm.soft:
                mixed = (weights[..., None] * table[candidates]).sum(-2)
                inputs = torch.where(thinking[:, None], mixed, inputs)
            inputs = inputs[:, None]
            mask = torch.nn.functional.pad(mask, (0, 1), value=1)
            position = position[:, -1:] + 1
        return Completions(torch.stack(ids_out, dim=1), forced, torch.stack(entropy_out, dim=1))
