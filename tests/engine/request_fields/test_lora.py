"""LoRA on attention and MLP, per request, in soft mode; LoRA on the embedding is refused."""

import json
import subprocess
import sys
from collections.abc import Sequence
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


@pytest.fixture
def adapted(spelling_model, oracle, tmp_path):
    """Paths of the adapters, and oracles of every adapter and of none."""
    paths, oracles = {}, {None: oracle}
    for name, (modules, seed) in ADAPTERS.items():
        paths[name] = adapters.create(tmp_path / name, oracle.model, modules, seed)
        oracles[name] = ProcessedOracle(spelling_model, dtype=torch.float64)
        adapters.merge(oracles[name].model, paths[name])
    return paths, oracles


def _requests(names: Sequence[str | None]) -> dict[str, Any]:
    """In one batch: two soft requests and a discrete one with every adapter."""
    samplings = [PLAIN.sampling_params(), COLD.sampling_params(), greedy(PLAIN)]
    return {
        "input_ids": [PLAIN.prompt] * len(samplings) * len(names),
        "sampling_params": samplings * len(names),
        "lora_path": [name for name in names for _ in samplings],
    }


def _check(
    outputs: list[dict[str, Any]], names: Sequence[str | None], oracles: dict[str | None, Any]
) -> None:
    trajectories = set()
    for i, name in enumerate(names):
        plain, cold, discrete = outputs[3 * i : 3 * i + 3]
        oracles[name].think(PLAIN).check(plain)
        oracles[name].think(COLD).check(cold)
        assert discrete["output_ids"] == oracles[name].greedy(PLAIN.prompt, PLAIN.steps), name
        trajectories.add(tuple(plain["output_ids"]))
    assert len(trajectories) == len(names), "the adapters change nothing"


def test_every_request_has_its_adapter(spelling_model, adapted, embedding_adapter, tmp_path):
    """Also those that come while the engine runs, go and come back: SGLang remembers the path."""
    paths, oracles = adapted
    before, after = [None, "attention", "mlp"], [None, "mlp", "both"]
    steps = [
        _requests(before),
        {"call": "load_lora_adapter", "lora_name": "both", "lora_path": paths["both"]},
        {"call": "unload_lora_adapter", "lora_name": "attention"},
        _requests(after),
        _requests(["attention"]),
        {
            "call": "load_lora_adapter",
            "lora_name": "embedding",
            "lora_path": embedding_adapter["embedding"],
        },
        _requests(after),
    ]
    started_with = {name: paths[name] for name in before[1:]}
    done = _run(spelling_model, started_with, steps, tmp_path, stock=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, loaded, unloaded, second, again, refused, third = json.loads(
        done.stdout.splitlines()[-1]
    )
    _check(first, before, oracles)
    assert loaded[0], loaded
    assert unloaded[0], unloaded
    _check(second, after, oracles)
    _check(again, ["attention"], oracles)
    # SGLang's own check: the embedding is no target module of this engine
    assert not refused[0]
    assert "target modules" in refused[1]
    _check(third, after, oracles)


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
