"""Everything to check and to measure on a machine with a CUDA GPU, within a few minutes.

    check_gpu.py --json gpu.json

Runs one after another, each in a process of its own with a deadline of its own: the tests of the
kernels on fresh random inputs, the benchmark of the kernels, CUDA graphs on against off, and soft
against discrete decoding on a running server. A part whose needs are missing, or that does not fit
into the time, is skipped, with its reason. Exits with 1 if a part failed. Without a GPU it only
says what it would run.
"""

import argparse
import functools
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from support import machine

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
SEED_VARIABLE = "SOFT_SGLANG_TEST_SEED"
RESERVE = 30.0
"""Seconds that are kept for stopping a part and writing the result."""


@dataclass(frozen=True)
class Part:
    """One thing to run.

    Attributes:
        least: seconds below which it is not begun.
        most: seconds after which it is stopped.
        missing: why it cannot run here; empty if it can.
        command: given a folder for its files and its seconds.
        read: what its folder and its output say, for the JSON.
    """

    name: str
    least: float
    most: float
    missing: Callable[[], str]
    command: Callable[[Path, float], list[str]]
    read: Callable[[Path, str], Any]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a part went: passed, failed or skipped, and why."""

    name: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    result: Any = None
    output: str = ""
    """The end of what it printed, if it failed."""


def run(part: Part, deadline: float) -> Outcome:
    """Run a part that has to end before ``deadline``, of ``time.monotonic``."""
    if reason := part.missing():
        return Outcome(part.name, "skipped", reason)
    remaining = deadline - time.monotonic()
    limit = min(part.most, remaining)
    if limit < part.least:
        reason = f"takes {part.least:.0f} s or more, {max(remaining, 0):.0f} s are left"
        return Outcome(part.name, "skipped", reason)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        status, output = _in_time(part.command(folder, limit), part.environment, limit)
        seconds = time.monotonic() - start
        if status == 0:
            return Outcome(part.name, "passed", "", seconds, part.read(folder, output))
        reason = f"stopped after {limit:.0f} s" if status is None else f"exit code {status}"
        result = part.read(folder, output)
        return Outcome(part.name, "failed", reason, seconds, result, output[-4000:])


def _in_time(command: list[str], more: dict[str, str], limit: float) -> tuple[int | None, str]:
    """Exit code, None if it was stopped, and what it printed."""
    environment = {**os.environ, **more}
    environment.pop("PYTHONSAFEPATH", None)  # the scripts import their neighbours
    with (
        tempfile.TemporaryFile("w+", errors="replace") as output,
        tempfile.TemporaryDirectory() as elsewhere,
    ):
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=elsewhere,  # the repository's root would hide installed packages
            start_new_session=True,
        )
        status: int | None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        _end_group(process)
        output.seek(0)
        return status, output.read()


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End what a part has left, its engines included."""
    for sign, within in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, sign)
            process.wait(within)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def parts(shape: str, seed: int, server_flags: list[str]) -> list[Part]:
    """What there is to run, in order."""
    python = sys.executable

    def script(name: str) -> list[str]:
        return [python, str(SCRIPTS / name)]

    return [
        Part(
            "kernel tests",
            least=20,
            most=180,
            missing=lambda: (
                _no_file("tests/kernels")
                or _no_module("pytest", "hypothesis", "triton", "soft_sglang")
            ),
            command=lambda folder, seconds: [
                *(python, "-m", "pytest", str(ROOT / "tests/kernels"), "-q", "-m", "not slow"),
                # what another release of Triton makes of other architectures is not of this GPU
                f"--ignore={ROOT / 'tests/kernels/test_compilation.py'}",
                *("-p", "no:cacheprovider", "--rootdir", str(ROOT)),
                # the other tests' set-up needs more than the kernels do
                f"--confcutdir={ROOT / 'tests/kernels'}",
                f"--junitxml={folder / 'junit.xml'}",
            ],
            environment={SEED_VARIABLE: str(seed), "PYTHONPATH": _path(ROOT / "tests")},
            read=lambda folder, output: {"seed": seed, **_junit(folder / "junit.xml")},
        ),
        Part(
            "kernel benchmark",
            least=20,
            most=120,
            missing=lambda: (
                _no_file("scripts/benchmark_kernels.py") or _no_module("triton", "soft_sglang")
            ),
            command=lambda folder, seconds: [
                *script("benchmark_kernels.py"),
                *("--json", str(folder / "result.json"), "--seconds", f"{seconds * 0.8:.0f}"),
            ],
            read=_json,
        ),
        Part(
            "CUDA graphs on and off",
            least=60,
            most=240,
            missing=_no_sglang,
            command=lambda folder, seconds: script("check_graphs.py"),
            read=lambda folder, output: _last_object(output),
        ),
        Part(
            "server, soft and discrete",
            least=90,
            most=600,
            missing=_no_sglang,
            command=lambda folder, seconds: [
                *script("benchmark_server.py"),
                *("--shape", shape, "--json", str(folder / "result.json")),
                *("--log", str(folder / "server.log"), "--seconds", f"{seconds - 30:.0f}"),
                *("--", *(server_flags or _attention_flags())),
            ],
            read=_json,
        ),
    ]


def _no_file(name: str) -> str:
    return "" if (ROOT / name).exists() else f"{name} does not exist"


def _no_module(*names: str) -> str:
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@functools.cache
def _no_sglang() -> str:
    """Why SGLang's server cannot be imported with its CUDA packages."""
    code = "import sgl_kernel, sglang.srt.entrypoints.http_server, soft_sglang"
    # not in the repository's root: its ./kernels would hide a package of that name
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                timeout=120,
                cwd=folder,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "importing SGLang takes more than 120 s"
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return f"SGLang does not import: {last[0][:300]}" if done.returncode else ""


def _attention_flags() -> list[str]:
    """SGLang's default needs FlashAttention of sglang-kernel; a trimmed one has none."""
    spec = importlib.util.find_spec("sgl_kernel")
    if spec is None or spec.origin is None or any(Path(spec.origin).parent.glob("flash_ops.*")):
        return []
    return ["--attention-backend", "triton"]


def _path(*folders: Path) -> str:
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*map(str, folders), *([given] if given else [])])


def _junit(file: Path) -> dict[str, int]:
    if not file.exists():
        return {}
    (suite,) = ElementTree.parse(file).getroot().iter("testsuite")
    return {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}


def _json(folder: Path, output: str) -> Any:
    file = folder / "result.json"
    return json.loads(file.read_text()) if file.exists() else None


def _last_object(output: str) -> Any:
    """The JSON object that ends what was printed."""
    start = output.rfind("\n{")
    try:
        return json.loads(output[start:]) if start >= 0 else None
    except json.JSONDecodeError:
        return None


def has_gpu() -> bool:
    """Whether PyTorch sees a CUDA GPU; asked in another process, which then releases it."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    return done.returncode == 0


def report(outcomes: list[Outcome]) -> None:
    """One line per part."""
    print(f"\n{'part':28}{'result':10}{'seconds':>8}  why")
    for outcome in outcomes:
        print(f"{outcome.name:28}{outcome.status:10}{outcome.seconds:8.1f}  {outcome.reason}")


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="for everything together")
    parser.add_argument("--shape", default="qwen3-8b", help="of the server's model")
    parser.add_argument("--seed", type=int, help="of the kernel tests; default: a new one")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="parts whose name has one of")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("server_flags", nargs="*", help="after --: flags of the server")
    arguments = parser.parse_args(argv)
    deadline = time.monotonic() + 60 * arguments.minutes - RESERVE
    seed = random.SystemRandom().getrandbits(31) if arguments.seed is None else arguments.seed
    chosen = [
        part
        for part in parts(arguments.shape, seed, arguments.server_flags)
        if not arguments.only or any(word in part.name for word in arguments.only)
    ]
    gpu = has_gpu()
    outcomes: list[Outcome] = []
    if not gpu:
        print("check_gpu: PyTorch sees no CUDA GPU here; nothing was run. On one, it runs:")
        for part in chosen:
            print(f"  {part.name}")
            outcomes.append(Outcome(part.name, "skipped", "no GPU"))
    else:
        print(f"seed of the kernel tests: {seed}")
        for part in chosen:
            print(f"{part.name} …", flush=True)
            outcomes.append(run(part, deadline))
            if outcomes[-1].output:
                print(outcomes[-1].output)
        report(outcomes)
    if arguments.json:
        result = {"machine": machine.facts(), "parts": [asdict(outcome) for outcome in outcomes]}
        arguments.json.write_text(json.dumps(result, indent=2))
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
