"""A plugin of SGLang for one test: notes in which state of its thought a request is retracted."""

import json
import os
from pathlib import Path


def load() -> None:
    """Hook what SGLang calls for every retracted request."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    path = Path(os.environ["RETRACTIONS"])

    def note(_result, req, *_args) -> None:
        trace = req.soft_thinking
        if trace is not None:
            state = trace.state
            line = {
                "phase": state.phase.name,
                "forced": state.forced,
                "matched": state.matched.bit_length(),
            }
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    HookRegistry.register(
        "sglang.srt.managers.schedule_batch.Req.reset_for_retract", note, HookType.AFTER
    )
