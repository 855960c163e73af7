"""The engine in bfloat16, step by step: its own concepts, fed to Hugging Face in float32.

Trajectories are chaotic, so whole ones cannot be compared across types. The reference has the same
rounded weights, and every step is compared with what the engine's own past demands.
"""

import itertools

import pytest
import torch
from one_thread import one_thread  # noqa: F401 - the import switches it on
from oracle import Oracle, Request

LOG_PROBABILITY = 0.08
"""Twice what was measured. bfloat16 keeps 8 bits, so logits around 4 are rounded to 1/64, which a
temperature of 0.6 makes 0.026; the activations of two layers are rounded too."""
ENTROPY = 2e-3
"""Of the mean over a trajectory, in nats; the steps' errors have either sign. Three times what was
measured."""
ROUTER = 0.02
"""Where the log-probabilities of the last expert chosen and the next are as near as that, rounding
may choose the other one, and the step is another function: it is left out."""
LEFT_OUT = 19
"""At most, of 192 steps; 9 were."""

REQUESTS = [
    Request([17, 42, 99, 5, 64], temperature=0.8, max_topk=6),
    Request([200, 31], temperature=0.6, top_k=30, top_p=0.95, min_p=0.001, max_topk=10),
    Request([5] * 20, max_topk=32),
]


def _rounded_oracle(path: str) -> Oracle:
    """In float32, with weights that are bfloat16 numbers."""
    oracle = Oracle(path)
    with torch.no_grad():
        for parameter in oracle.model.parameters():
            parameter.copy_(parameter.bfloat16())
    return oracle


class RouterMargins:
    """How near the choices of experts were in the last forward pass, the nearest of all layers."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._layers: list[torch.Tensor] = []
        self._chosen = getattr(model.config, "num_experts_per_tok", 0)
        for layer in model.model.layers:
            if hasattr(layer.mlp, "gate"):
                layer.mlp.gate.register_forward_hook(self._see)

    def _see(self, gate: torch.nn.Module, inputs: tuple, output: tuple[torch.Tensor, ...]) -> None:
        heaviest = output[0].log_softmax(-1).sort(-1, descending=True).values
        self._layers.append(heaviest[:, self._chosen - 1] - heaviest[:, self._chosen])

    def take(self, steps: int) -> torch.Tensor:
        """Of the last tokens, infinite without routers; forgets them."""
        none = torch.full((steps,), torch.inf)
        margins = torch.stack([none, *(layer[-steps:] for layer in self._layers)])
        self._layers.clear()
        return margins.min(0).values


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen3-moe"])
def test_every_step_is_right_given_the_engines_own_past(architecture, house, tiny_model):
    path = tiny_model(architecture)
    oracle = _rounded_oracle(path)
    routers = RouterMargins(oracle.model)
    engine = house.get(path, dtype="bfloat16")
    outputs = engine.generate(
        input_ids=[request.prompt for request in REQUESTS],
        sampling_params=[request.sampling_params() for request in REQUESTS],
    )
    left_out = 0
    for output, request in zip(outputs, REQUESTS, strict=True):
        answer = output["meta_info"]["soft_thinking"]
        concepts = answer["concepts"]
        assert answer["end"] == "length" and len(concepts) == request.steps
        assert output["output_ids"] == [concept[0][0] for concept in concepts]
        assert max(len(concept) for concept in concepts) == request.max_topk

        logits = oracle.follow(request.prompt, concepts)
        log_p = torch.log_softmax(logits / request.temperature, -1)
        clear = routers.take(request.steps) > ROUTER
        left_out += int((~clear).sum())
        for concept, exact in itertools.compress(zip(concepts, log_p, strict=True), clear):
            ids = torch.tensor([i for i, _ in concept])
            weights = torch.tensor([w for _, w in concept], dtype=torch.float64)
            # given which tokens it keeps, a concept's weights are their probabilities, renormalised
            kept = torch.log_softmax(exact[ids], -1)
            assert (weights.log() - kept).abs().max() < LOG_PROBABILITY
            # and it keeps the most probable ones
            rest = exact.index_fill(0, ids, -torch.inf)
            assert rest.max() - exact[ids].min() < LOG_PROBABILITY
        entropy = torch.special.entr(log_p.exp()).sum(-1).mean()
        assert answer["mean_entropy"] == pytest.approx(float(entropy), abs=ENTROPY)
    assert left_out <= LEFT_OUT
