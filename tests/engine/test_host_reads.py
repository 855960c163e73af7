"""A soft decode step reads no device value on the host (contract, invariant 6)."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from plugins.installation import install
from tiny_models import tokenizer_path

TESTS = Path(__file__).parent.parent


@pytest.fixture
def counting_environment(tmp_path):
    """An environment in which SGLang loads the counting plugin, and the file it writes."""
    counts = tmp_path / "counts.jsonl"
    paths = os.pathsep.join(install("count_host_reads", tmp_path))
    return {**os.environ, "PYTHONPATH": paths, "HOST_READS": str(counts)}, counts


def test_soft_steps_read_no_more_than_discrete_ones(tiny_model, counting_environment, tmp_path):
    environment, counts = counting_environment
    model = tiny_model("llama")
    done = subprocess.run(
        [sys.executable, TESTS / "engine/generate_mixed.py", model, tokenizer_path(model)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]

    steps = [json.loads(line) for line in counts.read_text().splitlines()]
    reads = defaultdict(set)
    for step in steps:
        reads[step["rows"], step["soft"]].add(json.dumps(step["reads"], sort_keys=True))
    for rows, soft in [(1, 1), (4, 4), (4, 2)]:
        assert reads[rows, soft], f"no decode step with {soft} of {rows} rows soft"
        # torch_native attention reads lengths on the host: the same number with and without
        assert reads[rows, soft] == reads[rows, 0], f"{soft} of {rows} rows soft"
    assert any(json.loads(found) for found in reads[1, 0]), "the counter counts nothing"
