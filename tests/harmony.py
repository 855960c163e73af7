"""A tiny random Llama whose tokens are those of OpenAI's Harmony format, and words.

https://cookbook.openai.com/articles/openai-harmony: a message is ``<|start|>role<|channel|>name
<|message|>text<|end|>``; the last one of an answer ends with ``<|return|>`` instead.
"""

from pathlib import Path

from spelling import create_model, tokenizer
from tiny_models import VOCAB_SIZE, tokenizer_path

MARKERS = [
    *("<|start|>", "<|end|>", "<|return|>", "<|channel|>", "<|message|>"),
    *("system", "user", "assistant", "analysis", "final"),
]
HARMONY_TOKENS = ["<pad>", *(f"w{i:03}" for i in range(1, VOCAB_SIZE - len(MARKERS))), *MARKERS]
"""By id."""
RETURN = HARMONY_TOKENS.index("<|return|>")


def create(folder: Path) -> str:
    """Save the model to ``folder`` and return its path; its tokenizer is beside it."""
    path = create_model(folder, eos=RETURN)
    tokenizer(HARMONY_TOKENS, eos="<|return|>").save_pretrained(tokenizer_path(path))
    return path
