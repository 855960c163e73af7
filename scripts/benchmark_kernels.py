"""Times of the kernels beside what they replace, and beside what the memory allows.

    benchmark_kernels.py --json kernels.json            # on a GPU: shapes that count first
    benchmark_kernels.py --tune --json tuning.json      # on a GPU: other launch parameters
    benchmark_kernels.py --from-json kernels.json --plot kernels.png

All numbers of a line come from one run and the same inputs. Every result that is timed is compared
with the PyTorch reference once before, on poisoned outputs; the exit code is 1 if one differs. On a
GPU the calls of a round are replayed from one CUDA graph, on data that no cache holds; times are
medians with quartiles. ``read once`` is a kernel that only reads the logits; the floor is what must
move over the measured rate of a large copy. Without a GPU the references are timed on the CPU, at
other shapes; with TRITON_INTERPRET=1 the kernels run in Triton's interpreter, whose times mean
nothing.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from support import kernel_cases, kernel_checks, machine
from support.device_timer import CpuTimer, CudaTimer, Timer, Timing
from support.intercepted import Launch, intercepted, overridden
from support.kernel_cases import (
    SETTINGS,
    Case,
    EmbeddingCase,
    EmbeddingInputs,
    StepCase,
    StepInputs,
)
from support.memory_bandwidth import copy_rate, read_time
from support.sampling_baselines import StockSampling, dense_embedding, dense_step
from triton import knobs

from soft_sglang.eval.machine import processor_name
from soft_sglang.kernels import concept_embedding_triton, thinking_step_triton
from soft_sglang.kernels.concept_embedding import concept_embedding
from soft_sglang.kernels.thinking_step import StepResult, thinking_step

OURS = "ours"
PASS, ROW = "vocabulary pass", "row kernel"
READ = "read once"
DENSE = "dense PyTorch"
PLAIN = "F.embedding"


@dataclass
class Measurement:
    """One case: microseconds by implementation."""

    operation: str
    case: dict[str, Any]
    bytes: int
    floor_us: float
    times: dict[str, Timing] = field(default_factory=dict)
    check: dict[str, float] = field(default_factory=dict)
    """How far the result is from the reference."""
    wrong: str = ""
    """What is out of tolerance."""
    tuning: dict[str, int] | None = None
    """Launch parameters other than the launcher's own."""

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "case": {k: v if isinstance(v, int | str) else str(v) for k, v in self.case.items()},
        }


class Benchmark:
    """Measures cases on one device.

    Args:
        device: to run on.
        deadline: on the monotonic clock; what does not fit is left out.
    """

    def __init__(self, device: torch.device, deadline: float) -> None:
        self.device = device
        self.interpreted = bool(knobs.runtime.interpret) and device.type == "cpu"
        self.has_kernels = self.interpreted or device.type == "cuda"
        self._deadline = deadline
        self._timer: Timer
        if device.type == "cuda":
            self._timer = CudaTimer(device, seconds=0.12)
        elif self.interpreted:
            self._timer = CpuTimer(device, seconds=0, least_rounds=2)
        else:
            self._timer = CpuTimer(device, seconds=0.4)
        self.copy_rate = copy_rate(self._timer)
        self.stock: StockSampling | None = None
        self.measurements: list[Measurement] = []
        self.left_out: list[str] = []
        self._table: tuple[tuple[Any, ...], torch.Tensor] | None = None

    def run(self, cases: Iterable[Case], tune: bool = False) -> None:
        """Measure cases one after the other, while there is time."""
        seconds: list[float] = [0.0]
        for case in cases:
            begin = time.monotonic()
            if begin + statistics.mean(seconds) > self._deadline:
                self.left_out.append(f"{case}: no time")
                continue
            try:
                if isinstance(case, StepCase):
                    (self._tune_step if tune else self._step)(case)
                else:
                    (self._tune_embedding if tune else self._embedding)(case)
            except torch.OutOfMemoryError as error:
                self._table = None
                self.left_out.append(f"{case}: {str(error).splitlines()[0]}")
            seconds.append(time.monotonic() - begin)

    def _new(self, operation: str, case: Case) -> Measurement:
        floor = 1e6 * case.bytes / self.copy_rate
        return Measurement(operation, vars(case), case.bytes, floor)

    def _add(self, measurement: Measurement) -> None:
        self.measurements.append(measurement)
        print(line(measurement), flush=True)

    # the thinking step

    def _step(self, case: StepCase) -> None:
        inputs = self._step_inputs(case)
        result = self._new("step", case)
        self._check_step(result, case, inputs)
        if self.has_kernels:
            self._time_kernels(result, inputs)
        else:
            result.times[OURS] = self._timer.time(self._step_calls(inputs))
        result.times[READ] = read_time(self._timer, list(inputs.logits))
        setting, sampling = SETTINGS[case.setting], inputs.sampling
        result.times[DENSE] = self._timer.time(
            [partial(dense_step, logits, sampling, setting) for logits in inputs.logits]
        )
        if self.stock is None:
            self.stock = StockSampling(self.device)
        for name, sample in self.stock.samplers(sampling, setting).items():
            result.times[name] = self._timer.time(
                [partial(sample, logits) for logits in inputs.logits]
            )
        self._add(result)

    def _tune_step(self, case: StepCase) -> None:
        """Other blocks of the pass, warps of both kernels and segments, a few at a time."""
        inputs = self._step_inputs(case)
        parameters: list[dict[str, int]] = [{}]
        parameters += [
            {"block": block, "pass_warps": warps}
            for block, warps in product((2048, 4096, 8192), (4, 8))
        ]
        parameters += [{"row_warps": warps} for warps in (4, 8, 16)]
        parameters += [
            {"segment": segment, "row_warps": warps}
            for segment, warps in product((32, 64, 128), (4, 8, 16))
        ]
        for chosen in parameters:
            result = self._new("step", case)
            result.tuning = chosen
            with ExitStack() as stack:
                values: dict[str, Any] = {}
                if "block" in chosen:
                    values["_BLOCK"] = chosen["block"]
                if "segment" in chosen:
                    values["segment_size"] = lambda _, size=chosen["segment"]: size
                stack.enter_context(overridden(thinking_step_triton, **values))
                self._check_step(result, case, inputs)
                self._time_kernels(
                    result, inputs, chosen.get("pass_warps"), chosen.get("row_warps")
                )
            self._add(result)

    def _step_inputs(self, case: StepCase) -> StepInputs:
        return kernel_cases.step_inputs(case, self._timer.copies(case.logits_bytes), self.device)

    def _time_kernels(
        self,
        result: Measurement,
        inputs: StepInputs,
        pass_warps: int | None = None,
        row_warps: int | None = None,
    ) -> None:
        """Time the step as a whole and each of its kernels."""

        def options(warps: int | None) -> dict[str, int]:
            return {} if warps is None else {"num_warps": warps}

        module = thinking_step_triton
        with (
            intercepted(module, "vocabulary_pass_kernel", **options(pass_warps)) as passes,
            intercepted(module, "thinking_step_kernel", **options(row_warps)) as rows,
        ):
            calls = self._step_calls(inputs)
            for call in calls:
                call()
            launches = {PASS: list(passes), ROW: list(rows)}
            result.times[OURS] = self._timer.time(calls)
        for name, repeated in launches.items():
            result.times[name] = self._timer.time(repeated)

    def _step_calls(self, inputs: StepInputs) -> list[Launch]:
        return [partial(self._run_step, inputs, logits) for logits in inputs.logits]

    def _run_step(self, inputs: StepInputs, logits: torch.Tensor) -> StepResult:
        sampling, table, slots, plan = inputs.sampling, inputs.table, inputs.slots, inputs.plan
        if self.interpreted:
            seeds = torch.empty_like(slots).random_() if plan.samples else None
            return StepResult(
                *thinking_step_triton.thinking_step(
                    logits, sampling, table, slots, None, plan, seeds
                )
            )
        return thinking_step(logits, sampling, table, slots, None, plan)

    def _check_step(self, result: Measurement, case: StepCase, inputs: StepInputs) -> None:
        result.check, result.wrong = kernel_checks.check_step(
            case, inputs, partial(self._run_step, inputs)
        )

    # the concept embedding

    def _embedding(self, case: EmbeddingCase) -> None:
        inputs = self._embedding_inputs(case)
        result = self._new("embedding", case)
        self._check_embedding(result, case, inputs)
        copies = range(len(inputs.ids))
        outs = [inputs.table.new_empty(case.batch, case.dim) for _ in copies]
        result.times[OURS] = self._timer.time(
            [partial(self._run_embedding, inputs, i, outs[i]) for i in copies]
        )
        result.times[PLAIN] = self._timer.time(
            [partial(F.embedding, inputs.input_ids[i], inputs.table) for i in copies]
        )
        concepts = [
            (inputs.ids[i][inputs.slots[i]], inputs.weights[i][inputs.slots[i]]) for i in copies
        ]
        result.times[DENSE] = self._timer.time(
            [partial(dense_embedding, inputs.table, *concept) for concept in concepts]
        )
        self._add(result)

    def _tune_embedding(self, case: EmbeddingCase) -> None:
        """Other blocks of columns, tokens at once, and numbers of programs."""
        inputs = self._embedding_inputs(case)
        module = concept_embedding_triton
        parameters: list[dict[str, int]] = [{}]
        parameters += [
            {"_COLUMNS": columns, "_TOKENS_AT_ONCE": tokens}
            for columns, tokens in product((512, 1024, 2048), (2, 4, 8, 16))
        ]
        parameters += [{"_PROGRAMS": programs} for programs in (1, 132, 528, 1056)]
        copies = range(len(inputs.ids))
        outs = [inputs.table.new_empty(case.batch, case.dim) for _ in copies]
        for chosen in parameters:
            result = self._new("embedding", case)
            result.tuning = chosen
            with overridden(module, **chosen):
                self._check_embedding(result, case, inputs)
                result.times[OURS] = self._timer.time(
                    [partial(self._run_embedding, inputs, i, outs[i]) for i in copies]
                )
            self._add(result)

    def _embedding_inputs(self, case: EmbeddingCase) -> EmbeddingInputs:
        key = case.vocab, case.dim, case.dtype
        if self._table is None or self._table[0] != key:
            self._table = None  # before the next one is made
            rows = torch.randn(case.vocab, case.dim, dtype=case.dtype, device=self.device)
            self._table = key, rows
        copies = self._timer.copies(case.bytes)
        return kernel_cases.embedding_inputs(case, copies, self.device, self._table[1])

    def _run_embedding(
        self, inputs: EmbeddingInputs, copy: int, out: torch.Tensor | None
    ) -> torch.Tensor:
        table, input_ids = inputs.table, inputs.input_ids[copy]
        concepts = inputs.ids[copy], inputs.weights[copy], inputs.slots[copy]
        if self.interpreted:
            return concept_embedding_triton.concept_embedding(table, input_ids, *concepts, 0, out)
        return concept_embedding(table, input_ids, *concepts, out=out)

    def _check_embedding(
        self, result: Measurement, case: EmbeddingCase, inputs: EmbeddingInputs
    ) -> None:
        result.check, result.wrong = kernel_checks.check_embedding(
            case, inputs, partial(self._run_embedding, inputs, 0)
        )


def line(measurement: Measurement) -> str:
    """A measurement in a line."""
    case, times = measurement.case, measurement.times
    if measurement.operation == "step":
        shape = f"B={case['batch']} V={case['vocab']}"
        kind = f"{case['logits']}, {case['setting']}, {case['phase']}"
    else:
        shape = f"B={case['batch']} K={case['width']} D={case['dim']}"
        kind = f"{case['weights']} non-zero, {str(case['dtype']).removeprefix('torch.')}"
    if measurement.tuning is not None:
        kind = " ".join(f"{k}={v}" for k, v in measurement.tuning.items()) or "launcher's own"
    own = times[OURS]
    parts = [
        f"{measurement.operation:10}{shape:22}{kind:36}{own.median:9.1f} "
        f"{f'({own.lower:.1f}-{own.upper:.1f})':20}{own.median / measurement.floor_us:7.2f}x"
    ]
    for name, timing in times.items():
        if name != OURS:
            mark = "*" if timing.method == "stream" else ""
            parts.append(f"{name} {timing.median:.1f}{mark}")
    if measurement.wrong:
        parts.append(f"WRONG: {measurement.wrong}")
    return "  ".join(parts)


HEAD = (
    f"{'':10}{'shape':22}{'':36}{'ours, µs':>9} {'quartiles':20}{'/floor':>8}  "
    "others, µs; *: launched one by one"
)


def goals(measurements: Iterable[Measurement], device_type: str) -> list[str]:
    """What was aimed at, in the numbers of this run."""
    lines = []
    for m in measurements:
        if m.tuning is not None or device_type != "cuda":
            continue
        case, own = m.case, m.times[OURS].median
        if m.operation == "embedding" and case["dim"] == 8192 and case["width"] == 8:
            head = f"embedding B={case['batch']} K=8 D=8192"
            if case["weights"] == "all":
                share = 100 * m.floor_us / own
                lines.append(f"{head}: {share:.0f} % of the copy's bandwidth")
            else:
                ratio = own / m.times[PLAIN].median
                lines.append(f"{head}, one non-zero weight: {ratio:.2f} x F.embedding")
        elif m.operation == "step" and case == vars(StepCase(case["batch"])):
            ratio = own / m.times[READ].median
            stock = m.times.get("SGLang, flashinfer") or m.times.get("SGLang, pytorch")
            text = f"step B={case['batch']} V=151936: {ratio:.2f} x reading the logits once"
            text += f", {m.times[DENSE].median / own:.1f} x faster than dense PyTorch"
            if stock is not None:
                text += f", {stock.median / own:.1f} x faster than stock sampling"
            lines.append(text)
    return lines


def device_facts(device: torch.device) -> dict[str, Any]:
    """What the timings depend on."""
    if device.type == "cpu":
        return {"type": "cpu", "name": processor_name(), "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(device)
    return {
        "type": "cuda",
        "name": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "memory_bytes": properties.total_memory,
    }


def tuned_cases(interpreted: bool) -> Iterable[Case]:
    """Shapes whose launch parameters are tried."""
    if interpreted:
        return [EmbeddingCase(2, vocab=300, dim=96, width=3), StepCase(1, vocab=9000)]
    return [
        EmbeddingCase(256),
        StepCase(32),
        StepCase(256),
        StepCase(1),
        EmbeddingCase(1),
        EmbeddingCase(32),
        EmbeddingCase(256, weights="one"),
        StepCase(32, setting="unfiltered", phase="answering"),
        EmbeddingCase(32, width=32),
        EmbeddingCase(32, dim=4096),
    ]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark; the result as plain data."""
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    deadline = time.monotonic() + arguments.seconds
    benchmark = Benchmark(device, deadline)
    facts = device_facts(device)
    print(f"{facts['name']}: copies move {benchmark.copy_rate / 1e9:.0f} GB/s, read plus written")
    if benchmark.interpreted:
        print("Triton's interpreter: these times mean nothing")
    elif not benchmark.has_kernels:
        print("no GPU: 'ours' are the PyTorch references on the CPU, not the kernels")
    print(HEAD)
    try:
        if arguments.tune:
            if not benchmark.has_kernels:
                raise SystemExit("--tune needs a GPU, or TRITON_INTERPRET=1 to see that it runs")
            benchmark.run(tuned_cases(benchmark.interpreted), tune=True)
        elif benchmark.interpreted:
            benchmark.run(kernel_cases.interpreted_cases())
        elif device.type == "cpu":
            benchmark.run(kernel_cases.cpu_cases())
        else:
            goals_first = [*kernel_cases.goal_cases(), *kernel_cases.sweep_cases()]
            benchmark.run(dict.fromkeys(goals_first))
    finally:
        missing = benchmark.stock.missing if benchmark.stock else {}
        result = {
            "device": facts,
            "interpreted": benchmark.interpreted,
            "copy_bytes_per_second": benchmark.copy_rate,
            "machine": machine.facts(),
            "missing": missing,
            "measurements": [m.to_dict() for m in benchmark.measurements],
            "goals": goals(benchmark.measurements, device.type),
            "left_out": benchmark.left_out,
            "arguments": {k: str(v) for k, v in vars(arguments).items()},
        }
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=2))
    for name, reason in missing.items():
        print(f"not measured: {name}: {reason}")
    if benchmark.left_out:
        print(f"left out: {len(benchmark.left_out)} cases, first {benchmark.left_out[0]}")
    print(*result["goals"], sep="\n")
    return result


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300, help="after which no case is begun")
    parser.add_argument("--tune", action="store_true", help="try other launch parameters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--plot", type=Path, help="PNG to write; needs matplotlib")
    parser.add_argument("--from-json", type=Path, help="plot this file; nothing is measured")
    arguments = parser.parse_args()
    if arguments.from_json:
        result = json.loads(arguments.from_json.read_text())
    else:
        result = measure(arguments)
    if arguments.plot:
        from support.kernel_plot import plot

        plot(result, arguments.plot)
    return 1 if any(m["wrong"] for m in result["measurements"]) else 0


if __name__ == "__main__":
    sys.exit(main())
