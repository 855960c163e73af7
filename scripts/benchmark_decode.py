"""Time of a decode step: soft against discrete, side by side on one engine.

    benchmark_decode.py                                # the bundled model
    benchmark_decode.py --model-path DIR --think-end-str '<empty_output>' --sampling paper greedy

Rounds alternate between the two, so that both see the same machine. A round is a run of one token
and a run of ``--steps`` more; their difference is decode steps alone. Prints the medians over the
rounds with their quartiles, and the quartiles of each round's own ratio; with ``--json`` writes the
numbers.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from support import machine

from soft_sglang import Engine
from soft_sglang.bundled import MODEL_PATH

SAMPLING: dict[str, dict[str, Any]] = {
    "paper": {"temperature": 0.6, "top_p": 0.95, "top_k": 30, "min_p": 0.001},
    "temperature": {"temperature": 0.6},
    "greedy": {"temperature": 0},
}
THINK_END = "</think>"


@dataclass(frozen=True)
class Quartiles:
    """Of the rounds."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        """Quartiles of at least two values."""
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))


@dataclass(frozen=True)
class Row:
    """One batch size with one kind of sampling."""

    sampling: str
    batch: int
    discrete_ms: Quartiles
    """Milliseconds of a decode step."""
    soft_ms: Quartiles
    round_ratio: Quartiles
    """Soft over discrete within a round."""

    @property
    def ratio(self) -> float:
        """Soft over discrete, of the medians."""
        return self.soft_ms.median / self.discrete_ms.median


class Benchmark:
    """Runs of an engine.

    Args:
        engine: to measure.
        steps: decode steps of a run.
        rounds: of each mode, after one to warm up.
        think_end_str: a token that the model does not emit; None: ``</think>``, biased away in
            both modes, which costs both a pass over the vocabulary.
        max_topk: tokens in a concept; None: the default.
    """

    def __init__(
        self,
        engine: Any,
        steps: int,
        rounds: int,
        think_end_str: str | None = None,
        max_topk: int | None = None,
    ) -> None:
        self._engine = engine
        self._steps = steps
        self._rounds = rounds
        self._soft = {
            "early_stopping_entropy_threshold": 0,
            "think_end_str": think_end_str or THINK_END,
        }
        if max_topk is not None:
            self._soft["max_topk"] = max_topk
        self._bias: dict[str, Any] = {}
        if think_end_str is None:
            tokens = engine.tokenizer_manager.tokenizer.encode(THINK_END, add_special_tokens=False)
            if len(tokens) != 1:
                raise SystemExit(f"{THINK_END} is not one token of this model: use --think-end-str")
            self._bias = {"logit_bias": {str(tokens[0]): -100.0}}

    def measure(self, sampling: str, batch: int) -> Row:
        """Alternate between discrete and soft rounds."""
        times: dict[bool, list[float]] = {False: [], True: []}
        for number in range(self._rounds + 1):
            for soft in (False, True) if number % 2 else (True, False):
                ms = self._step_ms(SAMPLING[sampling], batch, soft)
                if number:
                    times[soft].append(ms)
        ratios = [soft / discrete for discrete, soft in zip(*times.values(), strict=True)]
        return Row(sampling, batch, *map(Quartiles.of, (*times.values(), ratios)))

    def _step_ms(self, sampling: dict[str, Any], batch: int, soft: bool) -> float:
        seconds = [self._seconds(sampling, batch, soft, n) for n in (1, 1 + self._steps)]
        return 1000 * (seconds[1] - seconds[0]) / self._steps

    def _seconds(self, sampling: dict[str, Any], batch: int, soft: bool, tokens: int) -> float:
        parameters = {**sampling, **self._bias, "max_new_tokens": tokens, "ignore_eos": True}
        parameters["soft_thinking"] = self._soft if soft else False
        prompts = [f"What is {11 + i}*{98 - i}?" for i in range(batch)]
        start = time.perf_counter()
        outputs = self._engine.generate(prompt=prompts, sampling_params=parameters)
        seconds = time.perf_counter() - start
        for output in outputs:
            info = output["meta_info"]
            thought = info["soft_thinking"]["steps"] if soft else 0
            if info["completion_tokens"] != tokens or thought != (tokens if soft else 0):
                raise SystemExit(
                    f"{info['completion_tokens']} tokens, {thought} of them soft, instead of "
                    f"{tokens}: choose a --think-end-str that the model does not emit"
                )
        return seconds


def print_row(row: Row) -> None:
    """Print a row of the table."""
    columns = [f"{row.sampling:>12} {row.batch:5}"]
    for q in (row.discrete_ms, row.soft_ms):
        columns.append(f"{q.median:8.2f} ({q.lower:.2f}-{q.upper:.2f})".ljust(26))
    q = row.round_ratio
    columns.append(f"{row.ratio:.3f}  (rounds: {q.lower:.3f}-{q.upper:.3f})")
    print(" ".join(columns), flush=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-path", default=MODEL_PATH)
    parser.add_argument("--dtype", help="default: the engine's choice")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--sampling", nargs="+", default=["paper"], choices=SAMPLING)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-topk", type=int, help="tokens in a concept")
    parser.add_argument(
        "--think-end-str",
        help="a token that the model does not emit; default: </think>, biased away in both modes",
    )
    parser.add_argument("--json", help="file to write")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds must be at least 2")

    rows = []
    chosen = {} if arguments.dtype is None else {"dtype": arguments.dtype}
    with Engine(model_path=arguments.model_path, **chosen) as engine:
        overlap = not engine.server_args.disable_overlap_schedule
        dtype = engine.server_args.dtype
        benchmark = Benchmark(
            engine,
            arguments.steps,
            arguments.rounds,
            arguments.think_end_str,
            arguments.max_topk,
        )
        print(f"{'sampling':>12} batch  discrete ms, quartiles   soft ms, quartiles     ratio")
        for sampling in arguments.sampling:
            for batch in arguments.batches:
                rows.append(benchmark.measure(sampling, batch))
                print_row(rows[-1])
    if arguments.json:
        result = {
            "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
            "arguments": vars(arguments),
            "dtype": dtype,
            "overlap_schedule": overlap,
            "machine": machine.facts(),
        }
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
