"""Measures a model directory on the held-out problems: greedy, sampled, soft, soft with noise.

Run: ``python scripts/bundled_model/evaluate.py [DIR]``. Prints a table and one line of JSON. An
answer counts only when the text after ``</think>`` is exactly the right number, then the end token.
"""

import argparse
import json
import random
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from soft_sglang.cpu.environment import prepare

prepare()  # transformers imports torchvision, which may not fit this PyTorch

import torch  # noqa: E402
from decoding import Decoder, Mode  # noqa: E402
from phrasings import PLAIN, phrase  # noqa: E402
from problems import held_out_problems  # noqa: E402
from tokenizer import END, THINK_END  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

SHIPPED = Path(__file__).parents[2] / "soft_sglang" / "bundled_model"


@dataclass(frozen=True)
class Score:
    """The result of one decoding mode.

    accuracy: share of exact answers. finished: share of rows that reached the end token.
    thinking_tokens: mean number of tokens up to and with ``</think>``, over rows that have one.
    """

    mode: str
    phrasing: str
    problems: int
    seed: int
    accuracy: float
    finished: float
    thinking_tokens: float


def evaluate(
    directory: Path, limit: int = 800, seed: int = 0, phrasing: str = "plain"
) -> list[Score]:
    """Scores every mode on `limit` held-out problems, spread evenly.

    phrasing: "plain" asks "What is a*b?"; "mixed" draws one of the training phrasings per problem.
    """
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    eos, think_end = tokenizer.convert_tokens_to_ids([END, THINK_END])
    decoder = Decoder(model, think_end, eos)
    problems = held_out_problems()
    problems = [problems[i * len(problems) // limit] for i in range(min(limit, len(problems)))]
    rng = random.Random(seed)
    by_length = defaultdict(list)
    for problem in problems:
        question = PLAIN.format(f"{problem.left}*{problem.right}")
        if phrasing == "mixed":
            question = phrase(problem, rng)
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_dict=False,
        )
        by_length[len(ids)].append((ids, problem.answer))

    scores = []
    for mode in Mode:
        right = finished = thought = ended = 0
        for group in by_length.values():
            output = decoder(torch.tensor([ids for ids, _ in group]), mode, seed)
            for row, (_, answer) in zip(output.tolist(), group, strict=True):
                finished += eos in row
                if think_end in row:
                    ended += 1
                    thought += row.index(think_end) + 1
                expected = f"{THINK_END}{answer}{END}"
                text = tokenizer.decode(row)
                right += text[text.find(THINK_END) :].startswith(expected)
        n = len(problems)
        length = thought / max(1, ended)
        scores.append(Score(mode.value, phrasing, n, seed, right / n, finished / n, length))
    return scores


def print_table(scores: list[Score]) -> None:
    """Prints the scores as a Markdown table, then as one line of JSON."""
    print("| mode | phrasing | n | seed | accuracy | finished | thinking tokens |")
    print("|---|---|---|---|---|---|---|")
    for s in scores:
        print(
            f"| {s.mode} | {s.phrasing} | {s.problems} | {s.seed} | {s.accuracy:.2%} "
            f"| {s.finished:.2%} | {s.thinking_tokens:.1f} |"
        )
    print(json.dumps([asdict(s) for s in scores]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--problems", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--phrasing", choices=("plain", "mixed"), default="plain")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print_table(evaluate(args.directory, args.problems, args.seed, args.phrasing))


if __name__ == "__main__":
    main()
