"""What a run says of itself, for the end of the report."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soft_sglang.eval.measurements import Model


def settings_list(model: Model) -> str:
    """A Markdown list for each run of the model: everything in its ``run.json``.

    Of absolute paths only the last part is shown.
    """
    lists = []
    for number, run in enumerate(model.runs, start=1):
        entries: list[tuple[str, Any]] = [
            ("model", run.model),
            ("versions", run.versions),
            ("server", run.server),
            ("arguments of the engine", run.engine_args),
            ("machine", run.machine),
            *((f"dataset {d['name']}", {k: d[k] for k in d if k != "name"}) for d in run.datasets),
            *((f"prompt of {name}", text) for name, text in run.prompt.items()),
            ("arms", ", ".join(run.arms)),
            *((f"arm {name}", fields) for name, fields in run.added_arms.items()),
            ("samples per problem, of every arm", run.samples),
            ("sampling", run.sampling),
            ("soft thinking", run.soft_thinking),
            ("seed", run.seed),
            ("graded by", ", ".join(model.graders) or "nobody"),
            ("started", run.started),
        ]
        several = f", run {number} of {len(model.runs)}" if len(model.runs) > 1 else ""
        lines = [f"- {name}: {_text(value)}" for name, value in entries]
        lists.append("\n".join([f"**{model.name}**{several}", "", *lines]))
    return "\n\n".join(lists)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(part)}" for key, part in value.items()) or "none"
    if not isinstance(value, str):
        return json.dumps(value)
    if Path(value).is_absolute():
        return Path(value).name
    # one line, and nothing in it that Markdown would read
    return f"`` {json.dumps(value, ensure_ascii=False)} ``" if "\n" in value else value
