"""A model that reads token ids beside its input embedding is refused, with the reason."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from oracle import Oracle, Request
from tiny_models import EXTERNAL_MODELS, tokenizer_path

from soft_sglang.cpu.defaults import cpu_defaults

TESTS = str(Path(__file__).parent.parent)
REASON = (
    "soft-sglang does not support PerLayerLlamaForCausalLM: model.embed_tokens_per_layer "
    "(Embedding) reads token ids too, and a concept has none."
)


@pytest.fixture(scope="module")
def per_layer_llama(tiny_model, tmp_path_factory):
    """The tiny Llama, to be loaded as tests/external_models/per_layer_llama.py."""
    folder = tmp_path_factory.mktemp("models") / "per_layer_llama"
    shutil.copytree(tiny_model("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["PerLayerLlamaForCausalLM"]
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_under_plain_sglang_only_soft_requests_fail(house, per_layer_llama, monkeypatch):
    from sglang.srt.entrypoints.engine import Engine

    house.close()  # one engine at a time
    for name, value in EXTERNAL_MODELS.items():
        monkeypatch.setenv(name, value)
    arguments = {**cpu_defaults(per_layer_llama), "tokenizer_path": tokenizer_path(per_layer_llama)}
    with Engine(model_path=per_layer_llama, **arguments) as engine:
        request = Request([17, 42, 99], steps=16)
        with pytest.raises(ValueError, match=re.escape(REASON)):
            engine.generate(input_ids=request.prompt, sampling_params=request.sampling_params())
        discrete = {"temperature": 0, "max_new_tokens": 16, "ignore_eos": True}
        output = engine.generate(input_ids=request.prompt, sampling_params=discrete)
    assert output["output_ids"] == Oracle(per_layer_llama).greedy(request.prompt, 16)


def test_an_engine_for_soft_thinking_does_not_start(per_layer_llama, tmp_path):
    start = (
        "import sys; from soft_sglang import Engine; "
        "Engine(model_path=sys.argv[1], tokenizer_path=sys.argv[2])"
    )
    done = subprocess.run(
        [sys.executable, "-c", start, per_layer_llama, tokenizer_path(per_layer_llama)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **EXTERNAL_MODELS, "PYTHONPATH": TESTS},
        timeout=200,
        check=False,
    )
    assert done.returncode != 0
    assert REASON in done.stderr
