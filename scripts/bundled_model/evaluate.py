r"""Measures a model directory on the held-out questions: every way to think, side by side.

Run: ``python scripts/bundled_model/evaluate.py [DIR]``. Prints a Markdown table. An answer counts
if the last ``\boxed{}`` after ``</think>`` holds the right number; the same rule for every arm.
Tokens are all that were generated, the thought with ``</think>``, the answer and the end token.
"""

import argparse
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from soft_sglang.cpu.environment import prepare

prepare()  # transformers imports torchvision, which may not fit this PyTorch

import torch  # noqa: E402
from decoding import ARMS, Arm, Decoder  # noqa: E402
from held_out import SHIPPED, TEST_SET, held_out  # noqa: E402
from problems import Fold  # noqa: E402
from tokenizer import END, THINK_END  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

FOLDS: dict[str, tuple[Fold, Fold]] = {
    "validation": ("validation", "validation"),
    "known-templates": ("test", "training"),
}
"""Other question sets than the shipped one, by the folds of their problems and their templates."""
BATCH = 200
RESAMPLES = 4000


@dataclass(frozen=True)
class Score:
    """What one arm did on n questions, in their order.

    right, forced, finished: [n] bool. tokens, thinking: [n] fp32, numbers of tokens.
    """

    arm: Arm
    right: Tensor
    forced: Tensor
    finished: Tensor
    tokens: Tensor
    thinking: Tensor


def questions(fold: str, size: int) -> list[tuple[str, str]]:
    """Pairs of question and answer: the first of the test set, or of one of the other `FOLDS`."""
    if fold != "test":
        problems, templates = FOLDS[fold]
        asked = held_out(problems, size, templates)
        return [(q.text, str(q.problem.answer)) for q in asked]
    rows = [json.loads(line) for line in TEST_SET.read_text().splitlines()[:size]]
    return [(row["question"], row["answer"]) for row in rows]


def boxed(text: str) -> str | None:
    r"""What the last ``\boxed{}`` of a text holds."""
    found = re.findall(r"\\boxed\{([^}]*)\}", text)
    return found[-1].strip() if found else None


def evaluate(
    decoder: Decoder, tokenizer, pairs: list[tuple[str, str]], arm: Arm, seed: int
) -> Score:
    """Asks every question once."""
    chats = [[{"role": "user", "content": question}] for question, _ in pairs]
    prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    right, forced, finished, tokens, thinking = [], [], [], [], []
    for start in range(0, len(pairs), BATCH):
        done = decoder(prompts[start : start + BATCH], arm, seed + start)
        forced += done.forced.tolist()
        for row, (_, answer) in zip(done.ids.tolist(), pairs[start:], strict=False):
            length = row.index(decoder.eos) + 1 if decoder.eos in row else len(row)
            thought = row.index(decoder.think_end) + 1 if decoder.think_end in row else length
            finished.append(decoder.eos in row)
            tokens.append(length)
            thinking.append(thought)
            right.append(boxed(tokenizer.decode(row[thought:length])) == answer)
    flags = (torch.tensor(x) for x in (right, forced, finished))
    counts = (torch.tensor(x, dtype=torch.float32) for x in (tokens, thinking))
    return Score(arm, *flags, *counts)


def wilson(right: Tensor) -> tuple[float, float]:
    """The 95 % Wilson interval of a share. right: [n] bool."""
    n, p, z = len(right), right.double().mean().item(), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def change(tokens: Tensor, base: Tensor) -> tuple[float, float, float]:
    """Relative change of the mean, with its 95 % bootstrap interval over questions (paired)."""
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(tokens), (RESAMPLES, len(tokens)), generator=generator)
    ratios = tokens[picks].mean(-1) / base[picks].mean(-1) - 1
    low, high = ratios.quantile(torch.tensor([0.025, 0.975])).tolist()
    return (tokens.mean() / base.mean() - 1).item(), low, high


def print_row(score: Score, base: Score) -> None:
    """Prints one line of the Markdown table."""
    low, high = wilson(score.right)
    relative, least, most = change(score.tokens, base.tokens)
    versus = "" if score is base else f"{relative:+.1%} ({least:+.1%} to {most:+.1%})"
    print(
        f"| {score.arm.name} | {score.right.float().mean():.1%} ({low:.1%} to {high:.1%}) "
        f"| {score.tokens.mean():.1f} | {versus} | {score.thinking.mean():.1f} "
        f"| {score.forced.float().mean():.1%} | {score.finished.float().mean():.1%} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, nargs="?", default=SHIPPED)
    parser.add_argument("--fold", choices=("test", *FOLDS), default="test")
    parser.add_argument("--problems", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--entropy-threshold", type=float, default=Decoder.entropy_threshold)
    parser.add_argument("--length-threshold", type=int, default=Decoder.length_threshold)
    parser.add_argument("--max-new-tokens", type=int, default=Decoder.max_new_tokens)
    parser.add_argument(
        "--arms", nargs="+", choices=[arm.name for arm in ARMS], help="default: all"
    )
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.directory, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.directory)
    eos, think_end = tokenizer.convert_tokens_to_ids([END, THINK_END])
    decoder = Decoder(
        model,
        think_end,
        eos,
        entropy_threshold=args.entropy_threshold,
        length_threshold=args.length_threshold,
        max_new_tokens=args.max_new_tokens,
    )
    pairs = questions(args.fold, args.problems)
    print(f"{args.fold}: {len(pairs)} questions, seed {args.seed}\n")
    print("| arm | accuracy | tokens | against CoT | thinking tokens | Cold Stop | finished |")
    print("|---|---|---|---|---|---|---|")
    scores: list[Score] = []
    for arm in (arm for arm in ARMS if arm.name in (args.arms or [arm.name])):
        scores.append(evaluate(decoder, tokenizer, pairs, arm, args.seed))
        print_row(scores[-1], scores[0])


if __name__ == "__main__":
    main()
