"""Asks a running server by soft thinking and prints how it thought, step by step.

    python -m soft_sglang.launch_server --port 30000 &
    python examples/trace.py --url http://127.0.0.1:30000 --question "What is 7*48+15?"

Each line is one concept token: its entropy and its heaviest tokens with their weights. The entropy
is that of the concept, of the weights that were fed to the model; it is lower than the one that
Cold Stop watches, which is over the whole vocabulary and before any filter. The mean of that one is
in the headline.
"""

import argparse
import math
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from json import dumps, loads
from typing import Any

import openai

ENDS = {
    "think_end": "the model ended thinking",
    "cold_stop": "Cold Stop ended thinking",
    "budget": "the budget ended thinking",
    "closed": "the prompt had closed the thought",
    "eos": "the model ended its output while thinking",
    "stop": "a stop string ended thinking",
    "length": "max-tokens ended thinking",
    "abort": "aborted while thinking",
}
BAR_WIDTH = 8
INVISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥", "": "∅"}

Texts = Callable[[Sequence[int]], list[str]]
"""From token ids to their texts."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Show how a model thinks softly.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--url", default="http://127.0.0.1:30000", help="of the server")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--question", default="What is 7*48+15?")
    parser.add_argument("--max-topk", type=int, default=5, help="tokens in a concept")
    parser.add_argument("--temperature", type=float, help="if not the server's for its model")
    parser.add_argument("--top-p", type=float, help="if not the server's for its model")
    parser.add_argument("--noise", choices=["none", "gumbel", "dirichlet"], default="none")
    parser.add_argument("--seed", type=int, help="of the noise and the answer")
    parser.add_argument("--entropy-threshold", type=float, default=0.01, help="of Cold Stop, nats")
    parser.add_argument("--length-threshold", type=int, default=256, help="of Cold Stop, steps")
    parser.add_argument("--max-tokens", type=int, default=1024)
    parser.add_argument("--shown", type=int, default=5, help="tokens shown per step")
    parser.add_argument("--least", type=float, default=0.001, help="least weight shown")
    parser.add_argument("--tokenizer", help="for a server without /detokenize")
    return parser.parse_args(argv)


def ask(client: openai.OpenAI, options: argparse.Namespace) -> Any:
    """The chat completion, with its trace."""
    soft_thinking = {
        "max_topk": options.max_topk,
        "noise": options.noise,
        "early_stopping_entropy_threshold": options.entropy_threshold,
        "early_stopping_length_threshold": options.length_threshold,
        "return_concepts": True,
    }
    sampling = {
        name: getattr(options, name)
        for name in ("temperature", "top_p", "seed")
        if getattr(options, name) is not None
    }
    return client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=[{"role": "user", "content": options.question}],
        max_tokens=options.max_tokens,
        **sampling,
        extra_body={"soft_thinking": soft_thinking},
    )


def token_texts(options: argparse.Namespace) -> Texts:
    """How to look up the text of tokens: a local tokenizer if given, else the server's."""
    if options.tokenizer is None:
        return lambda ids: _server_texts(options, ids)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    return lambda ids: [tokenizer.decode([token]) for token in ids]


def _server_texts(options: argparse.Namespace, ids: Sequence[int]) -> list[str]:
    body = {"tokens": [[token] for token in ids], "skip_special_tokens": False}
    headers = {"content-type": "application/json", "authorization": f"Bearer {options.api_key}"}
    request = urllib.request.Request(f"{options.url}/detokenize", dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as response:
            texts: list[str] = loads(response.read())["text"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{options.url}/detokenize: {error}; give --tokenizer.") from None
    return texts


def entropy(weights: Sequence[float]) -> float:
    """Entropy of a concept, in nats."""
    return sum(-weight * math.log(weight) for weight in weights) + 0.0  # never -0.0


def visible(text: str) -> str:
    """A token's text on one line."""
    return INVISIBLE.get(text, text.replace("\n", "↵").replace(" ", "␣"))


def lines(answer: dict[str, Any], texts: Texts, options: argparse.Namespace) -> Iterator[str]:
    """The steps of a trace, one line each."""
    steps = [
        [(token, weight) for token, weight in concept if weight >= options.least]
        for concept in answer["concepts"]
    ]
    ids = sorted({token for step in steps for token, _ in step[: options.shown]})
    names = dict(zip(ids, map(visible, texts(ids)), strict=True))
    mixed = [names[token] for step in steps if len(step) > 1 for token, _ in step[: options.shown]]
    width = max(map(len, mixed), default=1)

    yield f" step  entropy{'':{BAR_WIDTH}}  concept"
    for number, (step, concept) in enumerate(zip(steps, answer["concepts"], strict=True), start=1):
        nats = entropy([weight for _, weight in concept])
        cells = [f"{names[token]:<{width}} {weight:5.3f}" for token, weight in step]
        note = "…" if len(cells) > options.shown else ""
        if number == len(steps):
            note = f"◀ {ENDS[answer['end']]}"
        bar = _bar(nats / math.log(max(options.max_topk, 2)))
        row = "  ".join([*cells[: options.shown], note])
        yield f"{number:>5}  {nats:5.3f} {bar:<{BAR_WIDTH}}   {row}".rstrip()


def _bar(share: float) -> str:
    eighths = round(min(share, 1.0) * BAR_WIDTH * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def main(argv: Sequence[str] | None = None) -> None:
    """Ask, and print the trace and the answer."""
    options = parse(argv)
    client = openai.OpenAI(base_url=f"{options.url}/v1", api_key=options.api_key)
    try:
        response = ask(client, options)
    except openai.APIStatusError as error:
        raise SystemExit(f"The server refuses: {error.message}") from None
    except openai.APIConnectionError:
        raise SystemExit(f"There is no server at {options.url}.") from None
    choice = response.choices[0].to_dict()
    answer, message = choice.get("soft_thinking"), choice["message"]
    if answer is None:
        raise SystemExit(f"{options.url} did not think softly; does it have soft-sglang?")

    print(options.question)
    print(
        f"{response.model}: {answer['steps']} thinking steps, {response.usage.completion_tokens} "
        f"tokens, mean entropy {answer['mean_entropy']:.3f} nats\n"
    )
    for line in lines(answer, token_texts(options), options):
        print(line)
    print(f"\nthinking  {(message.get('reasoning_content') or '').strip()}")
    print(f"answer    {(message.get('content') or '').strip()}")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    main()
