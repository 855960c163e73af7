"""Generates with LoRA adapters and prints the outputs as JSON. Run by ``test_lora.py``.

Arguments: the model, its tokenizer, the adapters as ``name=path``. Input: JSON with ``stock``,
whether the engine is SGLang's own, and ``requests``, the arguments of each ``generate``, or of
another method that ``call`` names.
"""

import functools
import json
import sys
from typing import Any

import torch

from soft_sglang.cpu.defaults import cpu_defaults
from soft_sglang.cpu.environment import prepare

prepare()


def _pageable(create: Any) -> Any:
    @functools.wraps(create)
    def wrapper(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Any:
        return create(*args, **kwargs)

    return wrapper


# SGLang's LoRA layers ask for pinned memory, which is there only with an accelerator
# (sgl-project/sglang#31894). The scheduler process imports this file as well.
if not torch.accelerator.is_available():
    torch.tensor, torch.zeros = _pageable(torch.tensor), _pageable(torch.zeros)
    torch.Tensor.pin_memory = lambda self, *args: self


def _call(engine: Any, call: str = "generate", **arguments: Any) -> Any:
    output = getattr(engine, call)(**arguments)
    return output if call == "generate" else [output.success, output.error_message]


def main() -> None:
    model, tokenizer, *adapters = sys.argv[1:]
    job = json.load(sys.stdin)
    if job["stock"]:
        from sglang.srt.entrypoints.engine import Engine
    else:
        from soft_sglang import Engine
    arguments = {
        **cpu_defaults(model),
        "tokenizer_path": tokenizer,
        "dtype": "float32",
        "lora_paths": dict(adapter.split("=", 1) for adapter in adapters),
        "lora_backend": "torch_native",
    }
    outputs: list[Any] = []
    with Engine(model_path=model, **arguments) as engine:
        for request in job["requests"]:
            try:
                outputs.append(_call(engine, **request))
            except ValueError as error:
                outputs.append(str(error))
    print(json.dumps(outputs))


if __name__ == "__main__":
    main()
