"""The tokenizer of the bundled model: words of its small world, single digits, characters.

A word is one token together with the space before it; words that can begin a text are also tokens
without one. Other words are spelled by characters, and characters outside the alphabet become
``<|unk|>``. Input is lower-cased, and other writings of a character (a multiplication sign, curly
quotes, full-width digits) are mapped to the alphabet. Decoding joins, so any text over the alphabet
survives a round trip.
"""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from phrasings import AFTER, BEFORE, LESS, MORE, NAMES, SIGNS, TEMPLATES, THINGS
from thoughts import CONCLUSIONS, CONNECTIVES, EQUALS, KINDS, OPENERS, TASKS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>"
THINK, THINK_END = "<think>", "</think>"
SPECIAL = (PAD, UNKNOWN, USER, ASSISTANT, END)
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz \n+-*/=()?.,:'!\"\\{}$;%"
PIECE = r" ?\\boxed\{| ?[a-z]+| ?[0-9]|[\s\S]"
"""What is looked up as a whole, before it is spelled by characters."""
CONTEXT_LENGTH = 2048

REPLACEMENTS = {
    "[\u00d7\u00b7\u22c5\u2219\u2715\u2716\u2217]": "*",  # multiplication sign, middle dots
    "[\u00f7\u2215]": "/",  # division sign and slash
    "[\u2212\u2010-\u2014]": "-",  # minus sign, dashes
    "[\u2018\u2019`]": "'",
    "[\u201c\u201d]": '"',
    "\r\n?": "\n",
    "[\t\u00a0]": " ",
}

CHAT_TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text()


def answer_text(answer: int) -> str:
    """What the model says after its thought."""
    return f"The answer is \\boxed{{{answer}}}.".lower()


def world() -> Iterator[str]:
    """Texts with every word of the training questions, the thoughts and the answers."""
    for group in TEMPLATES:
        for template in group.training:
            parts = [part.strip("[]").split("|") for part in re.split(r"(\[[^]]*\])", template)]
            yield from ("".join(choice) for choice in product(*parts))
    yield from (*BEFORE, *AFTER, *OPENERS, *TASKS, *CONNECTIVES, *EQUALS, *CONCLUSIONS, *KINDS)
    yield from (f"{name} {name}" for name in NAMES)
    yield from (f" {word}" for word in (*MORE, *LESS, *THINGS))
    yield from (sign for signs in SIGNS for sign in signs.values())
    yield f"{answer_text(0)} the answer is wait"
    yield from (f" {digit}" for digit in range(10))


def words() -> list[str]:
    """The pieces of `world` that are longer than a character, sorted."""
    texts = {re.sub(r"\{\w?\}", "{", text).lower() for text in world()}
    pieces = {piece for text in texts for piece in re.findall(PIECE, text)}
    return sorted(piece for piece in pieces if len(piece) > 1)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template.

    ``<think>`` and ``</think>`` are added tokens that are not special, as in Qwen3, so that
    ``skip_special_tokens`` keeps them.
    """
    vocabulary = [(token, 0.0) for token in (*SPECIAL, THINK, THINK_END)]
    vocabulary += [(character, -10.0) for character in CHARACTERS]
    vocabulary += [(word, -1.0) for word in words()]
    vocabulary += [(f"<|reserved{i}|>", -100.0) for i in range(-len(vocabulary) % 64)]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=1, byte_fallback=False))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            *(normalizers.Replace(Regex(old), new) for old, new in REPLACEMENTS.items()),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in (THINK, THINK_END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
