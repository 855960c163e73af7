"""Concept tokens for training: the model's own mixtures in place of the text of a thought.

Soft thinking goes on with the token that weighs most in the concept. So the drawn token exchanges
its weight with that of the heaviest one: the model learns that what comes next follows from the
token that weighs most, and which one that is stays open.
"""

import torch
from concepts import MAX_TOPK, concept, gumbel_softmax, mixture
from conversations import Batch
from torch import Tensor
from torch.nn.functional import pad
from transformers import Qwen3ForCausalLM

MIXED_SHARE = 0.8
"""Share of the rows whose thoughts are fed as concepts; the others stay text."""
NOISY_SHARE = 0.3
"""Share of the rows that get Gumbel noise."""
GUMBEL_TAU = 0.5
TEMPERATURES = (0.5, 1.0)
MAX_ROUNDS = 2


def text_inputs(batch: Batch) -> tuple[Tensor, Tensor]:
    """The drawn text as concepts of one token: weights and ids, [n, length, MAX_TOPK]."""
    ids = pad(batch.ids[..., None], (0, MAX_TOPK - 1))
    weights = torch.zeros(ids.shape)
    weights[..., 0] = 1
    return weights, ids


@torch.no_grad()
def mixed_inputs(
    model: Qwen3ForCausalLM, batch: Batch, generator: torch.Generator, bf16: bool
) -> tuple[Tensor, Tensor]:
    """As `text_inputs`, but with concepts at the thinking positions of most rows.

    Decoding makes concepts one after the other. Here a forward pass gives the distribution at
    every position, and its concept becomes the next position's input; a second round, half of the
    time, starts from the concepts of the first, as decoding does. No gradient flows through the
    weights.
    """
    table = model.get_input_embeddings().weight
    n = len(batch.ids)
    mixed = torch.rand(n, 1, generator=generator) < MIXED_SHARE
    noisy = torch.rand(n, 1, generator=generator) < NOISY_SHARE
    low, high = TEMPERATURES
    temperature = low + (high - low) * torch.rand(n, 1, generator=generator)
    replace = mixed & batch.thinking[:, 1:]
    row = replace.nonzero()[:, 0]
    noisy, temperature = noisy[row], temperature[row]
    weights, ids = text_inputs(batch)
    for _ in range(int(torch.randint(1, MAX_ROUNDS + 1, (), generator=generator))):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(inputs_embeds=mixture(weights, ids, table), use_cache=False).logits
        new, new_ids = concept(torch.softmax(logits[:, :-1][replace].float() / temperature, dim=-1))
        new = torch.where(noisy, gumbel_softmax(new, GUMBEL_TAU, generator), new)
        new, new_ids = led_by(batch.ids[:, 1:][replace][:, None], new, new_ids)
        weights[:, 1:][replace] = new
        ids[:, 1:][replace] = new_ids
    return weights, ids


def led_by(drawn: Tensor, weights: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The concept with the weights of `drawn` ([..., 1]) and of its heaviest token exchanged.

    Where `drawn` is not in it, it takes the heaviest token's place.
    """
    heaviest = weights.argmax(-1, keepdim=True)
    leader = ids.gather(-1, heaviest)
    exchanged = torch.where(ids == drawn, leader, ids)
    return weights, exchanged.scatter(-1, heaviest, drawn)
