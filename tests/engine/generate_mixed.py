"""Generates discrete, soft and mixed batches on the Engine. Run by ``test_host_reads.py``."""

import sys

from soft_sglang import Engine

DISCRETE = {"temperature": 0.8, "max_new_tokens": 20, "ignore_eos": True}
SOFT = {
    **DISCRETE,
    "top_p": 0.95,
    "soft_thinking": {
        "noise": "gumbel",
        "after_thinking_temperature": 0.5,
        "early_stopping_entropy_threshold": 6.0,
        "early_stopping_length_threshold": 8,
    },
}
MARKED = {
    **SOFT,
    "soft_thinking": {
        "think_end_str": "w9 w10 w11",
        "cold_stop_str": "w8 w9 w10 w11",
        "max_thinking_steps": 5,
        "rethink": True,
        "think_start_str": "w12 w13",
    },
}
"""Remembers matches, emits forced tokens one by one, and looks for another thought."""


def main() -> None:
    model, tokenizer = sys.argv[1:]
    with Engine(model_path=model, tokenizer_path=tokenizer, dtype="float32") as engine:
        for batch in (
            *([DISCRETE], [SOFT], [MARKED], [DISCRETE] * 4, [SOFT] * 4, [MARKED] * 4),
            *([SOFT, DISCRETE] * 2, [MARKED, DISCRETE] * 2),
        ):
            engine.generate(input_ids=[[5, 6, 7]] * len(batch), sampling_params=batch)


if __name__ == "__main__":
    main()
