"""Compiles the Triton kernels without a GPU and reports what the compiler made of them.

    compile_kernels.py --arch 80 90 100
    compile_kernels.py --quick                # some variants for one architecture, for CI

The kernels' own launchers run on tensors without data, once per case below; Triton's launch path
decides types, constants, alignment and options as on a GPU and hands them over instead of
launching. A variant that several cases share is compiled once. Registers, stack and spills are
ptxas's, instructions nvdisasm's; both are in the triton package. Instructions are counted once
each, not as often as loops run them. Exits with 1 if a variant does not compile or spills.
"""

import argparse
import contextlib
import functools
import importlib.metadata
import io
import json
import multiprocessing
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from support.kernel_inputs import PAPER, UNFILTERED, Setting
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from soft_sglang.kernels import concept_embedding_triton, thinking_step_triton

ARCHITECTURES = (80, 90, 100)
QUICK_ARCHITECTURE = 90
PARTS = 2
"""Pieces of an architecture's variants that can be compiled side by side."""


class OfflineDriver:
    """What Triton's launch path asks a GPU's driver for."""

    def __init__(self, architecture: int) -> None:
        self._architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._architecture, 32)

    def get_current_device(self) -> int:
        return self._architecture  # Triton keeps what it knows of a target by device

    def get_current_stream(self, device: int) -> int:
        return 0


@dataclass(frozen=True)
class Case:
    """One launch that a server may do; ``quick``: also with ``--quick``."""

    label: str
    launch: Callable[[], Any]
    quick: bool = False


@dataclass(frozen=True)
class Variant:
    """What one launch of a kernel compiles to."""

    kernel: Any
    """The JIT function."""
    label: str
    """Of the first case that launches it."""
    specialisation: str
    """Types, constants, alignment and options, as Triton writes them down."""
    constants: dict[str, Any]
    warps: int


@dataclass
class Report:
    """Of one compiled variant."""

    kernel: str
    variant: str
    arch: int
    warps: int
    constants: dict[str, Any]
    seconds: float
    error: str = ""
    registers: int = 0
    stack: int = 0
    """Bytes per thread; without spills: arrays that code indexes at run time."""
    spill_stores: int = 0
    """Bytes."""
    spill_loads: int = 0
    shared: int = 0
    """Bytes per program."""
    instructions: int = 0
    wide_loads: int = 0
    """Loads of 16 bytes or more per thread from global memory."""
    narrow_loads: int = 0
    wide_stores: int = 0
    narrow_stores: int = 0
    barriers: int = 0

    @property
    def failed(self) -> bool:
        return bool(self.error or self.spill_stores or self.spill_loads)


def step(
    setting: Setting,
    vocab: int = 151936,
    *,
    batch: int = 32,
    dtype: torch.dtype = torch.float32,
    some_rows: bool = False,
    samples: bool = True,
    **changes: bool,
) -> None:
    """Launch a thinking step; ``some_rows``: of half of the batch's rows."""
    slots = torch.empty(batch, dtype=torch.int64, device="meta")
    thinking_step_triton.thinking_step(
        torch.empty(batch, vocab, dtype=dtype, device="meta"),
        setting.sampling(batch, "meta"),
        setting.table(batch + 1, 0, "meta"),
        slots,
        slots[: (batch + 1) // 2] if some_rows else None,
        replace(setting.plan(samples), **changes),
        torch.empty_like(slots) if samples else None,
    )


def embedding(
    dim: int,
    *,
    batch: int = 256,
    width: int = 10,
    vocab: int = 151936,
    start: int = 0,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Launch a concept embedding."""
    table = torch.empty(vocab, dim, dtype=dtype, device="meta")
    index = torch.empty(batch, dtype=torch.int64, device="meta")
    ids = torch.empty(batch + 1, width, dtype=torch.int64, device="meta")
    weights = torch.empty(batch + 1, width, device="meta")
    out = table.new_empty(batch, dim)
    concept_embedding_triton.concept_embedding(table, index, ids, weights, index, start, out)


def cases() -> list[Case]:
    """Launches that cover what the plans of batches lead to."""
    call = functools.partial
    everything = {"with_gumbel": True, "with_dirichlet": True, "with_unfiltered": True}
    dirichlet = replace(UNFILTERED, noise="dirichlet")
    steps = [
        Case("paper", call(step, PAPER), quick=True),
        Case("paper, other sampler too", call(step, PAPER, samples=False), quick=True),
        Case("paper, some rows", call(step, PAPER, samples=False, some_rows=True)),
        Case("paper, V=151937", call(step, PAPER, 151937), quick=True),
        Case("paper, V=32000", call(step, PAPER, 32000)),
        Case("paper, V=128256", call(step, PAPER, 128256)),
        Case("paper, V=262144", call(step, PAPER, 262144)),
        Case("paper, bfloat16 logits", call(step, PAPER, dtype=torch.bfloat16)),
        Case("joint filters", call(step, replace(PAPER, min_p=0.0))),
        Case("unfiltered", call(step, UNFILTERED), quick=True),
        Case("K=1", call(step, replace(UNFILTERED, max_topk=1))),
        Case("K=32", call(step, replace(UNFILTERED, max_topk=32))),
        Case("top-k 64", call(step, replace(PAPER, top_k=64))),
        Case("top-k 128", call(step, replace(PAPER, top_k=128))),
        Case("top-k 256", call(step, replace(PAPER, top_k=256))),
        Case("paper, Gumbel", call(step, replace(PAPER, noise="gumbel"))),
        Case("paper, Dirichlet", call(step, replace(PAPER, noise="dirichlet"))),
        Case("Dirichlet, no top-k", call(step, dirichlet, samples=False)),
        Case("all", call(step, dirichlet, **everything)),
        Case("all, V=262144", call(step, dirichlet, 262144, **everything)),
    ]
    embeddings = [
        Case("D=8192, K=8", call(embedding, 8192, width=8), quick=True),
        Case("D=8192, K=32", call(embedding, 8192, width=32)),
        Case("D=8192, K=1", call(embedding, 8192, width=1)),
        Case("D=4096", call(embedding, 4096)),
        Case("D=4096, B=1", call(embedding, 4096, batch=1), quick=True),
        Case("D=4096, B=16", call(embedding, 4096, batch=16)),
        Case("D=4096, shard", call(embedding, 4096, vocab=37984, start=37984)),
        Case("D=896", call(embedding, 896)),
        Case("D=2049", call(embedding, 2049)),
        Case("D=4096, float16", call(embedding, 4096, dtype=torch.float16)),
        Case("D=4096, float32", call(embedding, 4096, dtype=torch.float32)),
    ]
    return embeddings + steps


def variants(chosen: list[Case]) -> list[Variant]:
    """The different kernels that cases launch on the active driver's architecture."""
    found: dict[tuple[str, str], Variant] = {}
    label = ""

    def record(key: str, fn: Any, compile: dict[str, Any], **_: Any) -> bool:
        kernel = fn.jit_function
        constants = {
            kernel.arg_names[path[0]]: value
            for path, value in compile["constants"].items()
            if len(path) == 1
        }
        found.setdefault(
            (fn.name, key),
            Variant(kernel, label, compile["specialization_data"], constants, compile["num_warps"]),
        )
        return True  # ends the launch here

    knobs.runtime.jit_cache_hook = record
    try:
        for case in chosen:
            label = case.label
            case.launch()
    finally:
        knobs.runtime.jit_cache_hook = None
    return list(found.values())


def compiled(variant: Variant, architecture: int) -> Report:
    """Compile a variant and read its machine code."""
    log = io.StringIO()
    start = time.perf_counter()
    report = Report(
        variant.kernel.__name__,
        variant.label,
        architecture,
        variant.warps,
        variant.constants,
        seconds=0,
    )
    try:
        with contextlib.redirect_stdout(log):
            binary = variant.kernel.preload(variant.specialisation)
    except Exception as error:  # Triton's passes and ptxas fail in many ways
        report.error = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
        return report
    report.seconds = time.perf_counter() - start
    _read_ptxas(report, log.getvalue())
    report.shared = binary.metadata.shared
    _read_machine_code(report, binary.asm["cubin"])
    return report


def _read_ptxas(report: Report, log: str) -> None:
    registers = re.search(r"Used (\d+) registers", log)
    frame = re.search(
        r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log
    )
    if registers is None or frame is None:
        report.error = f"ptxas did not report registers and spills: {log[:200]!r}"
        return
    report.registers = int(registers[1])
    report.stack, report.spill_stores, report.spill_loads = map(int, frame.groups())


def _read_machine_code(report: Report, cubin: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [knobs.nvidia.nvdisasm.path, file.name], capture_output=True, text=True, check=True
        )
    instruction = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?([A-Z][A-Z0-9_.]*)", re.M)
    names = Counter(instruction.findall(done.stdout))
    del names["NOP"]  # padding

    def count(*prefixes: str, wide: bool | None = None) -> int:
        return sum(
            number
            for name, number in names.items()
            if name.split(".")[0] in prefixes
            and wide in (None, bool(re.search(r"\.(128|256)\b", name)))
        )

    report.instructions = sum(names.values())
    report.wide_loads = count("LDG", "LDGSTS", wide=True)
    report.narrow_loads = count("LDG", "LDGSTS", wide=False)
    report.wide_stores = count("STG", wide=True)
    report.narrow_stores = count("STG", wide=False)
    report.barriers = count("BAR")


COLUMNS = (
    f"{'kernel':25}{'variant':26}{'arch':>5}{'warps':>6}{'regs':>5}{'stack':>6}{'spill':>6}"
    f"{'shared':>8}{'instr':>7}{'loads 16B':>10}{'other':>6}{'stores 16B':>11}{'other':>6}"
    f"{'barr':>5}"
)


def line(report: Report) -> str:
    """A row of the table."""
    head = f"{report.kernel:25}{report.variant:26}{report.arch:5}{report.warps:6}"
    if report.error:
        return f"{head}  {report.error}"
    return (
        f"{head}{report.registers:5}{report.stack:6}{report.spill_stores + report.spill_loads:6}"
        f"{report.shared:8}{report.instructions:7}{report.wide_loads:10}{report.narrow_loads:6}"
        f"{report.wide_stores:11}{report.narrow_stores:6}{report.barriers:5}"
    )


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Compile everything anew, in a cache that is thrown away, and see what ptxas says."""
    with tempfile.TemporaryDirectory() as folder:
        knobs.cache.dir = folder
        knobs.nvidia.dump_ptxas_log = True
        yield


def reports_of(task: tuple[int, bool, list[str] | None, int]) -> list[Report]:
    """The reports of every :data:`PARTS`-th variant of an architecture."""
    architecture, quick, only, part = task
    with offline():
        driver.set_active(OfflineDriver(architecture))
        chosen = variants([case for case in cases() if case.quick or not quick])
        return [
            compiled(variant, architecture)
            for variant in chosen[part::PARTS]
            if not only or any(word in variant.kernel.__name__ for word in only)
        ]


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", type=int, nargs="+", help=f"default: {ARCHITECTURES}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="kernels whose name has one of")
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    if knobs.runtime.interpret:
        parser.error("TRITON_INTERPRET is set: there would be nothing to compile")
    default = (QUICK_ARCHITECTURE,) if arguments.quick else ARCHITECTURES
    architectures = arguments.arch or default
    tasks = [
        (architecture, arguments.quick, arguments.only, part)
        for architecture in architectures
        for part in range(PARTS)
    ]
    reports = []
    print(COLUMNS)
    # a process for each: Triton keeps what was compiled, and would launch it the next time
    with multiprocessing.get_context("spawn").Pool(maxtasksperchild=1) as pool:
        for part in pool.imap(reports_of, tasks, chunksize=1):
            reports += part
            for report in part:
                print(line(report), flush=True)
    failed = [report for report in reports if report.failed]
    seconds = sum(report.seconds for report in reports)
    version = importlib.metadata.version("triton")
    print(
        f"triton {version}: {len(reports)} variants, {len(failed)} that do not compile or spill, "
        f"{seconds:.0f} s"
    )
    if arguments.json:
        rows = [{**asdict(report), "failed": report.failed} for report in reports]
        result = {"triton": version, "torch": torch.__version__, "reports": rows}
        arguments.json.write_text(json.dumps(result, indent=2, default=str))
    return 1 if failed or not reports else 0


if __name__ == "__main__":
    sys.exit(main())
