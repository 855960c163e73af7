"""Concept tokens for training: the model's own mixtures in place of the text of a thought.

Where a thought can go two ways, the first token at which they part becomes a mixture of both. The
labels after it are those of the way that weighs more in the mixture, so that the model learns to
follow it; the label at the parting itself stays as drawn, so that both ways stay open there.
"""

import torch
from concepts import concept, gumbel_softmax
from conversations import Batch, Path
from torch import Tensor
from torch.nn.functional import one_hot
from transformers import Qwen3ForCausalLM

MIXED_SHARE = 0.8
"""Share of the rows whose thoughts are fed as concepts; the others stay text."""
NOISY_SHARE = 0.3
"""Share of the mixed rows that get Gumbel noise."""
GUMBEL_TAU = 0.5
TEMPERATURES = (0.5, 1.0)
MAX_ROUNDS = 3


def text_inputs(batch: Batch, vocabulary: int) -> tuple[Tensor, Tensor]:
    """One-hot input weights [n, length, vocabulary] and labels [n, length] of the drawn paths."""
    return one_hot(batch.drawn.ids, vocabulary).float(), batch.drawn.labels


@torch.no_grad()
def mixed_inputs(
    model: Qwen3ForCausalLM, batch: Batch, generator: torch.Generator, bf16: bool
) -> tuple[Tensor, Tensor]:
    """As `text_inputs`, but with concepts at the thinking positions of most rows.

    Decoding makes concepts one after the other. Here a forward pass gives the distribution at
    every position, and its concept becomes the next position's input. The first round settles the
    parting and what comes before; the later ones start from the text of the chosen way and renew
    all that follows, to approach the sequential result in a few parallel passes. Each row stops
    after a round of its own, so the model meets early and late ones. No gradient flows through
    the weights.
    """
    table = model.get_input_embeddings().weight
    n, vocabulary = len(batch.branch), len(table)
    rounds = torch.randint(1, MAX_ROUNDS + 1, (n,), generator=generator)
    rounds[torch.rand(n, generator=generator) >= MIXED_SHARE] = 0
    noisy = torch.rand(n, 1, 1, generator=generator) < NOISY_SHARE
    low, high = TEMPERATURES
    temperature = low + (high - low) * torch.rand(n, 1, 1, generator=generator)
    after = torch.arange(batch.drawn.ids.shape[1]) > batch.branch[:, None]

    def renew(inputs: Tensor, replace: Tensor, rows: Tensor) -> None:
        """Puts concepts in place, at `replace` ([n, length] bool) in `rows` ([n] bool)."""
        rows = rows.nonzero()[:, 0]
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(inputs_embeds=inputs[rows] @ table, use_cache=False).logits[:, :-1]
        weights = concept(torch.softmax(logits.float() / temperature[rows], dim=-1))
        noise = gumbel_softmax(weights, GUMBEL_TAU, generator)
        weights = torch.where(noisy[rows], noise, weights)
        inputs[rows, 1:] = torch.where(replace[rows, 1:, None], weights, inputs[rows, 1:])

    concepts, drawn_labels = text_inputs(batch, vocabulary)
    renew(concepts, batch.drawn.thinking & ~after, rounds > 0)
    path = heavier_path(batch, concepts)
    inputs = torch.where(after[..., None], one_hot(path.ids, vocabulary).float(), concepts)
    for done in range(1, int(rounds.max())):
        renew(inputs, path.thinking & after, rounds > done)
    at_or_after = torch.arange(after.shape[1]) >= batch.branch[:, None]
    return inputs, path.labels.where(at_or_after, drawn_labels)


def heavier_path(batch: Batch, inputs: Tensor) -> Path:
    """Per row the path whose token weighs more at the branch, the drawn one on a tie."""
    rows = torch.arange(len(inputs))
    branch = batch.branch.clamp_max(inputs.shape[1] - 1)
    weights = inputs[rows, branch]
    drawn = weights[rows, batch.drawn.ids[rows, branch]]
    other = weights[rows, batch.other.ids[rows, branch]]
    return batch.drawn.where(drawn >= other, batch.other)
