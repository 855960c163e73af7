"""Generates without soft thinking on SGLang's own Engine; prints the ids as JSON.

Run by ``test_off.py`` once with the plugin and once without.
"""

import json
import sys

from soft_sglang.cpu.defaults import cpu_defaults
from soft_sglang.cpu.environment import prepare


def main() -> None:
    prepare()
    from sglang.srt.entrypoints.engine import Engine
    from sglang.srt.plugins.hook_registry import HookRegistry

    prompts = json.load(sys.stdin)
    model, tokenizer = sys.argv[1:]
    arguments = {**cpu_defaults(model), "dtype": "float32", "random_seed": 7}
    with Engine(model_path=model, tokenizer_path=tokenizer, **arguments) as engine:
        greedy = {"temperature": 0, "max_new_tokens": 32}
        # one at a time: the order of draws from the seeded generator is then the same
        sampled = {"temperature": 0.9, "top_p": 0.9, "max_new_tokens": 16}
        result = {
            "greedy": [
                output["output_ids"]
                for output in engine.generate(input_ids=prompts, sampling_params=greedy)
            ],
            "sampled": [
                engine.generate(input_ids=prompt, sampling_params=sampled)["output_ids"]
                for prompt in prompts[:10]
            ],
            "patches": len(HookRegistry._patched),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
