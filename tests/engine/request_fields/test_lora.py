"""LoRA on attention and MLP, per request, in soft mode; LoRA on the embedding is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from processed_oracle import ProcessedOracle
from soft_requests import COLD, PLAIN, greedy
from tiny_models import tokenizer_path

GENERATE = Path(__file__).parent / "generate_lora.py"
ADAPTERS = {
    "attention": (adapters.ATTENTION, 11),
    "mlp": (adapters.MLP, 103),
    "both": ([*adapters.ATTENTION, *adapters.MLP], 204),
}
"""Modules, and the seed of weights with which no decision is a near tie."""


def _run(
    model: str, paths: dict[str, str], requests: list[dict[str, Any]], cwd: Path, stock: bool
) -> subprocess.CompletedProcess[str]:
    named = [f"{name}={path}" for name, path in paths.items()]
    return subprocess.run(
        [sys.executable, GENERATE, model, tokenizer_path(model), *named],
        input=json.dumps({"stock": stock, "requests": requests}),
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


@pytest.fixture
def embedding_adapter(spelling_model, oracle, tmp_path):
    modules = [*adapters.ATTENTION, adapters.EMBEDDING]
    return {"embedding": adapters.create(tmp_path / "embedding", oracle.model, modules, seed=9)}


def test_every_request_has_its_adapter(spelling_model, oracle, tmp_path):
    """In one batch: soft and discrete, with every adapter and with none."""
    paths, oracles = {}, {None: oracle}
    for name, (modules, seed) in ADAPTERS.items():
        paths[name] = adapters.create(tmp_path / name, oracle.model, modules, seed)
        oracles[name] = ProcessedOracle(spelling_model, dtype=torch.float64)
        adapters.merge(oracles[name].model, paths[name])
    kinds = [
        (name, request)
        for name in oracles
        for request in (PLAIN.sampling_params(), COLD.sampling_params(), greedy(PLAIN))
    ]
    requests = [
        {
            "input_ids": [PLAIN.prompt] * len(kinds),
            "sampling_params": [sampling for _, sampling in kinds],
            "lora_path": [name for name, _ in kinds],
        }
    ]
    done = _run(spelling_model, paths, requests, tmp_path, stock=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (outputs,) = json.loads(done.stdout.splitlines()[-1])
    trajectories = set()
    for i, (name, own) in enumerate(oracles.items()):
        plain, cold, discrete = outputs[3 * i : 3 * i + 3]
        own.think(PLAIN).check(plain)
        own.think(COLD).check(cold)
        assert discrete["output_ids"] == own.greedy(PLAIN.prompt, PLAIN.steps), name
        trajectories.add(tuple(plain["output_ids"]))
    assert len(trajectories) == len(oracles), "the adapters change nothing"


def test_the_start_of_a_soft_engine_refuses_lora_on_the_embedding(
    spelling_model, embedding_adapter, tmp_path
):
    done = _run(spelling_model, embedding_adapter, [], tmp_path, stock=False)
    assert done.returncode != 0
    assert "soft-sglang does not support LoRA on the input embedding" in done.stderr


def test_sglangs_own_engine_refuses_only_soft_requests(spelling_model, embedding_adapter, tmp_path):
    requests = [
        {"input_ids": PLAIN.prompt, "sampling_params": sampling, "lora_path": "embedding"}
        for sampling in (PLAIN.sampling_params(), greedy(PLAIN))
    ]
    done = _run(spelling_model, embedding_adapter, requests, tmp_path, stock=True)
    assert done.returncode == 0, done.stderr[-3000:]
    soft, discrete = json.loads(done.stdout.splitlines()[-1])
    assert "soft_thinking is not available" in soft
    assert "does not support LoRA on the input embedding" in soft
    assert len(discrete["output_ids"]) == PLAIN.steps
