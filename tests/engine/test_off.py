"""With the plugin installed and nothing asked, outputs are those of stock SGLang (invariant 1)."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from tiny_models import VOCAB_SIZE, tokenizer_path

GENERATE = Path(__file__).parent / "generate_discrete.py"


def _prompts() -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(4, VOCAB_SIZE) for _ in range(draw.randint(1, 40))] for _ in range(50)]


def _outputs(model: str, prompts: list[list[int]], cwd: Path, plugins: str | None) -> dict:
    environment = dict(os.environ)
    environment.pop("SGLANG_PLUGINS", None)
    if plugins is not None:
        environment["SGLANG_PLUGINS"] = plugins
    done = subprocess.run(
        [sys.executable, GENERATE, model, tokenizer_path(model)],
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_discrete_outputs_are_those_of_stock_sglang(tiny_model, tmp_path):
    model, prompts = tiny_model("llama"), _prompts()
    stock = _outputs(model, prompts, tmp_path, plugins="none")
    plugged = _outputs(model, prompts, tmp_path, plugins=None)
    assert (stock["patches"], plugged["patches"] > 20) == (0, True)
    assert len(stock["greedy"]) == 50
    assert plugged["greedy"] == stock["greedy"]
    assert plugged["sampled"] == stock["sampled"]
    assert len({tuple(ids) for ids in stock["sampled"]}) > 5, "sampling did not sample"
