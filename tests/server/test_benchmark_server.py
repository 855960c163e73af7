"""The benchmark over HTTP measures what it says, on a real server."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_server.py"
TOKENS, AT_A_TIME, WAVES = 24, 3, 2


def benchmark(folder, server, *flags):
    environment = dict(os.environ)
    environment.pop("PYTHONSAFEPATH", None)  # the script imports its neighbours
    command = [sys.executable, SCRIPT, "--url", server.url, "--rounds", "1", "--input-len", "8"]
    command += ["--concurrency", str(AT_A_TIME), "--waves", str(WAVES)]
    return subprocess.run(
        [*map(str, command), *flags],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )


def test_figures_of_soft_and_discrete_requests(tmp_path, server):
    file = tmp_path / "result.json"
    done = benchmark(tmp_path, server, "--output-len", str(TOKENS), "--json", str(file))
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(file.read_text())

    (row,) = result["rows"]
    assert (row["concurrency"], row["rounds"]) == (AT_A_TIME, 1)
    for mode in ("discrete", "soft"):
        (run,) = row["runs"][mode]
        assert run == row[mode]
        # a wave takes its first token and the steps after it; the rate must agree with that
        wave_ms = run["ttft_median_ms"] + (TOKENS - 1) * run["tpot_median_ms"]
        rate = 1000 * AT_A_TIME * TOKENS / wave_ms
        assert 0.3 * rate < run["tokens_per_s"] < 1.5 * rate
    for name, ratio in row["soft_over_discrete"].items():
        assert ratio == row["soft"][name] / row["discrete"][name]
    assert row["soft"] != row["discrete"]

    assert result["server"]["disable_overlap_schedule"] is False
    assert result["server"]["graphs"]["decode"] == "disabled"  # on a CPU
    assert result["machine"]["versions"]["sglang"] == metadata.version("sglang")
    assert "output tokens/s" in done.stdout


def test_more_requests_than_the_server_runs_are_refused(tmp_path, server):
    done = benchmark(tmp_path, server, "--concurrency", "100000")
    assert done.returncode != 0
    assert "requests at a time" in done.stderr
