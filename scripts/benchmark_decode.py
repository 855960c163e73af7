"""Decode steps per second: soft against discrete, side by side on one engine.

Rounds alternate between the two, so that both see the same machine; the ratio of the medians is
what counts. Prints a table and, with ``--json``, writes the numbers.
"""

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

from soft_sglang import Engine
from soft_sglang.bundled import MODEL_PATH

SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 30, "min_p": 0.001, "ignore_eos": True}
SOFT = {"early_stopping_entropy_threshold": 0}


@dataclass(frozen=True)
class Row:
    """Medians over the rounds."""

    batch: int
    discrete_ms: float
    """Milliseconds of a decode step."""
    soft_ms: float

    @property
    def ratio(self) -> float:
        """Step time, soft over discrete."""
        return self.soft_ms / self.discrete_ms


def step_ms(engine: Any, batch: int, steps: int, soft: bool) -> float:
    """Milliseconds per decode step of ``batch`` requests that run side by side.

    The think-end token is biased away, so that soft requests think to the end.
    """
    sampling: dict[str, Any] = {**SAMPLING, "max_new_tokens": steps}
    sampling["logit_bias"] = {str(think_end(engine)): -100.0}
    if soft:
        sampling["soft_thinking"] = SOFT
    prompts = [[5 + (i + j) % 40 for j in range(8)] for i in range(batch)]
    start = time.perf_counter()
    outputs = engine.generate(input_ids=prompts, sampling_params=sampling)
    seconds = time.perf_counter() - start
    for output in outputs:
        assert output["meta_info"]["completion_tokens"] == steps
        assert output["meta_info"].get("soft_thinking", {}).get("steps") == (
            steps if soft else None
        )
    return 1000 * seconds / steps


def think_end(engine: Any) -> int:
    """Id of the think-end token."""
    (token,) = engine.tokenizer_manager.tokenizer.encode("</think>", add_special_tokens=False)
    return int(token)


def measure(engine: Any, batch: int, steps: int, rounds: int) -> Row:
    """Alternate between discrete and soft rounds after one of each to warm up."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(rounds + 1):
        for soft in (False, True) if number % 2 else (True, False):
            ms = step_ms(engine, batch, steps, soft)
            if number:
                times[soft].append(ms)
    return Row(batch, statistics.median(times[False]), statistics.median(times[True]))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-path", default=MODEL_PATH)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="file to write")
    arguments = parser.parse_args()
    with Engine(model_path=arguments.model_path) as engine:
        rows = [measure(engine, b, arguments.steps, arguments.rounds) for b in arguments.batches]
        overlap = not engine.server_args.disable_overlap_schedule
    print(f"{'batch':>5} {'discrete ms':>12} {'soft ms':>9} {'soft/discrete':>14}")
    for row in rows:
        print(f"{row.batch:5} {row.discrete_ms:12.2f} {row.soft_ms:9.2f} {row.ratio:14.3f}")
    if arguments.json:
        result = {
            "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
            "overlap_schedule": overlap,
            "machine": platform.processor() or platform.machine(),
            **{name: getattr(arguments, name) for name in ("model_path", "steps", "rounds")},
        }
        with open(arguments.json, "w") as file:
            json.dump(result, file, indent=2)


if __name__ == "__main__":
    main()
