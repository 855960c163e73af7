"""The kernels compile without a GPU: neither spills nor stack, and loads of 16 bytes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "compile_kernels.py"


def run(*command: object) -> None:
    """Run Python where nothing is interpreted, and scripts find their neighbours."""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
    environment.pop("PYTHONSAFEPATH", None)
    assert "TRITON_INTERPRET" not in environment
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=SCRIPT.parent,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(
    scope="module",
    params=["--quick", pytest.param("--all", marks=pytest.mark.slow)],
)
def reports(request, tmp_path_factory) -> list[dict]:
    """The principal variants of every kernel for every architecture, or all of them."""
    file = tmp_path_factory.mktemp("compiled") / "reports.json"
    quick = ["--quick"] if request.param == "--quick" else []
    run(SCRIPT, "--arch", 80, 90, 100, *quick, "--json", file)
    return json.loads(file.read_text())["reports"]


WARM_UP = """
from compile_kernels import Case, OfflineDriver, cases, driver, offline, variants
from support.kernel_inputs import PAPER
from soft_sglang.kernels.thinking_step import warm_up

def names(launches):
    return {
        (v.kernel.__name__, v.specialisation) for v in variants(launches)
        if v.kernel.__name__ != "concept_embedding_kernel"
    }

with offline():
    driver.set_active(OfflineDriver(90))
    # another vocabulary, table width or type of logits is another server
    same_server = [c for c in cases() if not any(w in c.label for w in ("V=", "K=", "bfloat16"))]
    needed = names(same_server)
    ready = names([Case("warm-up", lambda: warm_up(PAPER.table(2, 0, "meta"), 151936))])
assert len(needed) > 10, len(needed)
assert needed <= ready, needed - ready
"""


def test_no_request_waits_for_the_compiler() -> None:
    """What batches launch was compiled at the start."""
    run("-c", WARM_UP)


def of(reports: list[dict], kernel: str) -> list[dict]:
    found = [report for report in reports if report["kernel"] == kernel]
    assert found
    return found


def test_nothing_spills(reports) -> None:
    assert {report["arch"] for report in reports} == {80, 90, 100}
    for report in reports:
        assert not report["error"]
        assert report["spill_stores"] == report["spill_loads"] == 0, report
        # the cosine of the Dirichlet noise has a path for huge arguments with an array
        assert report["stack"] == 0 or report["constants"]["NOISE"], report


def test_programs_share_a_multiprocessor(reports) -> None:
    """Two at least, but for the row kernel with more than 32 candidates."""
    for report in reports:
        if report["constants"].get("CANDIDATES", 0) <= 32 and "D=2049" not in report["variant"]:
            assert report["registers"] * 32 * report["warps"] * 2 <= 65536, report


def test_logits_are_read_16_bytes_at_a_time(reports) -> None:
    """All 4096 of a program by 128 threads; the rest are parameters of the row."""
    passes = [r for r in of(reports, "vocabulary_pass_kernel") if r["variant"] != "paper, V=151937"]
    for report in passes:
        assert report["warps"] * 32 == 128
        size = 2 if "bfloat16" in report["variant"] else 4
        # once for full chunks, once for the last one
        assert report["wide_loads"] == 2 * 4096 * size // (16 * 128), report
        assert report["narrow_loads"] < 16


@pytest.mark.parametrize("variant", ["D=8192, K=8", "D=4096, B=1"])
def test_embeddings_are_read_and_written_16_bytes_at_a_time(reports, variant: str) -> None:
    found = [r for r in of(reports, "concept_embedding_kernel") if r["variant"] == variant]
    assert len(found) == 3
    for report in found:
        assert report["wide_loads"] == 1 + report["constants"]["TOKENS"]
        assert report["narrow_stores"] == 0 < report["wide_stores"]
