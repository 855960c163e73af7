"""The training script of the bundled model runs from start to end."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "scripts/bundled_model/train.py"


def test_a_few_steps_give_a_loadable_model(tmp_path):
    command = [sys.executable, SCRIPT, "--out", tmp_path / "model"]
    command += ["--steps", "6", "--batch-size", "8", "--problems", "8"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    environment.pop("PYTHONSAFEPATH", None)  # the script imports its neighbours
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "soft" in done.stdout  # the table of the evaluation
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
