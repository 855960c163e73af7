"""Checks on a GPU that CUDA graphs change no soft result: graphs on and off give equal ids.

Runs the same soft, noisy, Cold Stop and discrete requests, and one of every other policy, on two
engines of the bundled model, one with decode graphs (which hold the hidden states) and one without,
prints what it found as JSON, and exits with 1 if they differ.
Where PyTorch sees no GPU it says so and compares nothing.
"""

import argparse
import json
import sys
from typing import Any

from soft_sglang import Engine
from soft_sglang.bundled import MODEL_PATH
from soft_sglang.cpu.environment import has_accelerator

PROMPTS = [
    f"<|user|>What is {a}*{b}?<|assistant|><think>" for a, b in ((43, 34), (98, 89), (7, 61))
]
LONG = {"early_stopping_entropy_threshold": 0, "max_topk": 8, "after_thinking_temperature": 0}
KINDS: list[dict[str, Any] | bool] = [
    LONG,
    {**LONG, "noise": "gumbel"},
    {
        "early_stopping_entropy_threshold": 100,
        "early_stopping_length_threshold": 9,
        "after_thinking_temperature": 0,  # an answer that is drawn differs from run to run
    },
    {**LONG, "policy": "discrete"},
    {**LONG, "policy": "average_embedding"},
    {**LONG, "policy": "coconut_tf"},
    {**LONG, "policy": "mixture_of_inputs"},
    {**LONG, "policy": "swi_reasoning", "swi_window_size": 4},
    {**LONG, "policy": "selar", "selar_entropy_threshold": 0.1},
    False,
]


def requests() -> tuple[list[str], list[dict[str, Any]]]:
    """Every prompt with every kind: prompts and sampling parameters."""
    pairs = [(prompt, kind) for prompt in PROMPTS for kind in KINDS]
    sampling = [
        {
            "temperature": 1.5 if kind else 0,
            "max_new_tokens": 100,
            "sampling_seed": number,
            "soft_thinking": {**kind, "return_concepts": True} if isinstance(kind, dict) else kind,
        }
        for number, (_, kind) in enumerate(pairs)
    ]
    return [prompt for prompt, _ in pairs], sampling


def run(arguments: argparse.Namespace, graphs: bool) -> dict[str, Any]:
    """Outputs of one engine, and how much memory its graphs take."""
    with Engine(
        model_path=arguments.model_path,
        dtype=arguments.dtype,
        attention_backend=arguments.attention_backend,
        disable_cuda_graph=not graphs,
        return_hidden_states_mode="last",
        random_seed=0,
    ) as engine:
        prompts, sampling = requests()
        outputs = engine.generate(prompt=prompts, sampling_params=sampling)
        (state,) = engine.get_server_info()["internal_states"]
    return {
        "ids": [output["output_ids"] for output in outputs],
        "concepts": [o["meta_info"].get("soft_thinking", {}).get("concepts") for o in outputs],
        "memory": state["memory_usage"],
    }


def largest_difference(one: list[Any], other: list[Any]) -> float:
    """Largest difference of a weight between two traces of the same length."""
    pairs = [(dict(a), dict(b)) for a, b in zip(one, other, strict=True)]
    return max(abs(a.get(i, 0.0) - b.get(i, 0.0)) for a, b in pairs for i in a.keys() | b.keys())


def main(argv: list[str] | None = None) -> int:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-path", default=MODEL_PATH)
    parser.add_argument("--dtype", default="float32", help="float32 keeps near ties rare")
    parser.add_argument("--attention-backend", default="triton")
    arguments = parser.parse_args(argv)
    if not has_accelerator():
        print("check_graphs: skipped, PyTorch sees no GPU here")
        return 0
    with_graphs, without = run(arguments, graphs=True), run(arguments, graphs=False)
    mixtures = [len(c) > 1 for trace in without["concepts"] if trace for c in trace]
    equal = with_graphs["ids"] == without["ids"]
    result = {
        "requests": len(without["ids"]),
        "ids_equal": equal,
        "mixtures": sum(mixtures),
        "largest_weight_difference": (
            max(
                largest_difference(a, b)
                for a, b in zip(with_graphs["concepts"], without["concepts"], strict=True)
                if a and b
            )
            if equal
            else None
        ),
        "memory_with_graphs": with_graphs["memory"],
        "memory_without": without["memory"],
    }
    print(json.dumps(result, indent=2))
    return 0 if equal and any(mixtures) else 1


if __name__ == "__main__":
    sys.exit(main())
