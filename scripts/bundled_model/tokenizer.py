"""The character-level tokenizer of the bundled model: 64 tokens, one per character.

Input is lower-cased; other writings of a character (a multiplication sign, curly quotes,
full-width digits) are mapped to the alphabet, everything else becomes ``<|unk|>``. Decoding joins
without spaces, so any text over the alphabet survives a round trip.
"""

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, USER, ASSISTANT, END = "<|pad|>", "<|unk|>", "<|user|>", "<|assistant|>", "<|end|>"
THINK, THINK_END = "<think>", "</think>"
SPECIAL = (PAD, UNKNOWN, USER, ASSISTANT, END)
CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz \n+-*/=()?.,:'!\"\\{}$;"
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


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer with its chat template.

    ``<think>`` and ``</think>`` are added tokens that are not special, as in Qwen3, so that
    ``skip_special_tokens`` keeps them.
    """
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, THINK, THINK_END, *CHARACTERS))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            *(normalizers.Replace(Regex(old), new) for old, new in REPLACEMENTS.items()),
        ]
    )
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
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
