"""Run folders with a known truth, written as the runner writes them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Truth:
    """What an arm does: its tokens are CoT's times `length`, its chances CoT's times `skill`.

    `cold_stop` is the share of its answers that Cold Stop ends, `entropy` whether the engine
    returned entropies; both only mean something for soft arms.
    """

    length: float = 1.0
    skill: float = 1.0
    cold_stop: float = 0.0
    soft: bool = True
    entropy: bool = True


COT = Truth(soft=False)
ARMS: Mapping[str, Truth] = {
    "cot": COT,
    "cot_greedy": Truth(0.97, 1.02, soft=False),
    "cold_stop_only": Truth(0.85, 1.0, 0.6),
    "soft": Truth(0.75, 1.0, 0.7),
    "soft_no_cold_stop": Truth(0.98, 1.0),
}
SAMPLING = {
    "temperature": 0.6, "top_p": 0.95, "top_k": 30, "min_p": 0.001, "max_new_tokens": 2000,
}  # fmt: skip
SOFT_THINKING = {
    "max_topk": 10,
    "early_stopping_entropy_threshold": 0.01,
    "early_stopping_length_threshold": 256,
}


def write_run(
    folder: Path,
    *,
    model: str = "models/toy-1B",
    datasets: Mapping[str, int] | None = None,
    arms: Mapping[str, Truth] = ARMS,
    samples: int = 2,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a complete run; `changes` replace top-level keys of run.json. Returns the folder."""
    datasets = {"alpha": 60} if datasets is None else datasets
    folder.mkdir(parents=True)
    run = {
        "format": 1,
        "versions": {"soft_sglang": "0.1.0", "sglang": "0.5.21", "python": "3.11.2"},
        "model": {"path": model, "name": Path(model).name, "digest": "0123abcd"},
        "server": "engine",
        "engine_args": {"mem_fraction_static": 0.5},
        "datasets": [
            {
                "name": name,
                "path": f"data/{name}.jsonl",
                "digest": f"d-{name}",
                "problems": problems,
            }
            for name, problems in datasets.items()
        ],
        "samples": samples,
        "arms": list(arms),
        "sampling": SAMPLING,
        "soft_thinking": SOFT_THINKING,
        "seed": seed,
        "prompt": dict.fromkeys(datasets, "{question}\nThink, then answer."),
        "machine": "two cores",
        "started": "2026-01-02T03:04:05+00:00",
    } | dict(changes or {})
    (folder / "run.json").write_text(json.dumps(run, indent=2))
    answers, grades, times = [], [], []
    for name, problems in datasets.items():
        for arm, truth in arms.items():
            block = list(_answers(arm, truth, name, problems, samples, seed))
            answers += [answer for answer, _ in block]
            grades += [grade for _, grade in block]
            tokens = sum(answer["tokens"] for answer, _ in block)
            times.append(
                {"arm": arm, "dataset": name, "answers": len(block), "tokens": tokens}
                | {"seconds": tokens / 500}
            )
    write_lines(folder / "answers.jsonl", answers)
    write_lines(folder / "grades.jsonl", grades)
    write_lines(folder / "times.jsonl", times)
    return folder


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write_lines(file: Path, records: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def _answers(
    arm: str, truth: Truth, dataset: str, problems: int, samples: int, seed: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    shared = np.random.default_rng([seed, len(dataset), problems])  # the same for every arm
    lengths = shared.gamma(6, 30, problems) + 40
    chances = shared.beta(3, 1, problems)
    random = np.random.default_rng([seed, *arm.encode(), *dataset.encode()])
    for problem in range(problems):
        for sample in range(samples):
            steps = int(lengths[problem] * truth.length * random.uniform(0.9, 1.1)) + 1
            ended_by_cold_stop = random.random() < truth.cold_stop
            correct = bool(random.random() < chances[problem] * truth.skill)
            answer = "42" if correct else "41"
            yield (
                {
                    "arm": arm, "dataset": dataset, "problem": f"p{problem}", "sample": sample,
                    "seed": seed + sample, "question": "What is 6*7?", "truth": "42",
                    "request": {}, "text": f"so</think>{answer}", "thinking": "so",
                    "answer": answer, "tokens": steps + 5, "thinking_tokens": steps,
                    "finish_reason": "stop",
                    "soft_thinking": {
                        "steps": steps,
                        "end": "cold_stop" if ended_by_cold_stop else "think_end",
                        "mean_entropy": 0.1,
                        "entropies": _entropies(random, steps) if truth.entropy else None,
                    } if truth.soft else None,
                    "seconds": steps / 100, "finished_at": 1.7e9 + problem,
                },
                {
                    "arm": arm, "dataset": dataset, "problem": f"p{problem}", "sample": sample,
                    "grader": "math_verify", "rule": 1, "correct": correct, "extracted": answer,
                },
            )  # fmt: skip


def _entropies(random: np.random.Generator, steps: int) -> list[float]:
    """Mostly certain, now and then a choice, and more certain towards the end."""
    choice = random.random(steps) < np.linspace(0.25, 0.02, steps)
    values = np.where(choice, random.gamma(2, 0.4, steps), random.exponential(0.003, steps))
    return [round(float(value), 6) for value in values]
