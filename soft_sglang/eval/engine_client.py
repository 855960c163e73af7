"""Asks an Engine in this process."""

import asyncio
import hashlib
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from soft_sglang import __version__
from soft_sglang.bundled import MODEL_PATH
from soft_sglang.eval.client import NO_PENALTIES, ClientError, Output, Question, summary
from soft_sglang.eval.errors import first_line
from soft_sglang.eval.separation import end_of_thinking, is_closed, split
from soft_sglang.options import DEFAULT_THINK_END

_Result = TypeVar("_Result")
_MIB = 1 << 20
_IDLE_WITHIN = 10.0
"""Seconds, after the last answer of an arm."""


class EngineClient:
    """Asks SGLang's Engine with the plugin; the chat template is applied here."""

    server = "engine"

    def __init__(
        self, engine: Any, model_path: str, think_end: str = DEFAULT_THINK_END, digest: bool = True
    ) -> None:
        """Take a running engine.

        Args:
            engine: a :class:`soft_sglang.Engine`.
            model_path: what it was started with.
            think_end: what ends thinking, also the engine's.
            digest: whether to read the weights for their SHA-256.
        """
        self._engine = engine
        self._tokenizer = engine.tokenizer_manager.tokenizer
        self.think_end = think_end
        self.context_length: int | None = engine.tokenizer_manager.context_len
        self._think_end_ids = self._tokenizer.encode(think_end, add_special_tokens=False)
        bundled = model_path == MODEL_PATH
        self.model: Mapping[str, Any] = {
            "path": "bundled" if bundled else model_path,
            "name": "bundled" if bundled else Path(model_path).name,
            "digest": model_digest(Path(model_path)) if digest else None,
        }
        self.versions: Mapping[str, str | None] = {
            "soft_sglang": __version__,
            **{name: version(name) for name in ("sglang", "torch", "transformers")},
        }

    @classmethod
    def start(
        cls,
        model_path: str,
        max_topk: int,
        think_end: str,
        seed: int,
        engine_args: Mapping[str, Any],
    ) -> "EngineClient":
        """Start an engine; `engine_args` win over the rest.

        Raises:
            ClientError: it does not start.
        """
        from soft_sglang import Engine

        defaults = {"log_level": "error", "random_seed": seed, "max_topk": max_topk}
        arguments = {**defaults, **engine_args}
        try:
            engine = Engine(model_path=model_path, think_end_str=think_end, **arguments)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise ClientError(f"the engine does not start: {first_line(error)}") from error
        return cls(engine, model_path, think_end)

    def require_soft_thinking(self) -> None:
        """An Engine that started can."""

    def run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Run in the engine's own loop; an interrupted coroutine is cancelled, and may tidy up."""
        loop = self._engine.loop
        task = loop.create_task(work)
        try:
            result: _Result = loop.run_until_complete(task)
        except KeyboardInterrupt:
            task.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
            raise
        return result

    async def ask(self, question: Question) -> Output:
        """Ask once; the request's record shows the prompt as text, and ids are sent."""
        ids = self._prompt_ids(question.message)
        sampling = {
            **question.sampling.as_dict(),
            **NO_PENALTIES,
            "sampling_seed": question.seed,
            "skip_special_tokens": False,
            "soft_thinking": question.soft_thinking,
        }
        try:
            result = await self._engine.async_generate(
                input_ids=ids, sampling_params=dict(sampling)
            )
        except ValueError as error:
            raise ClientError(f"the engine refuses a request: {first_line(error)}") from error
        meta = result["meta_info"]
        reason = meta["finish_reason"]
        if reason["type"] == "abort":
            raise ClientError(f"the engine broke a request off: {reason.get('message')}")
        text, output_ids = result["text"], result["output_ids"]
        own = summary(meta.get("soft_thinking"))
        end = 0 if is_closed(own) else end_of_thinking(output_ids, self._think_end_ids)
        thinking, answer = (None, "") if end is None else self._split(text, output_ids[:end])
        return Output(
            request={"prompt": self._tokenizer.decode(ids), "sampling_params": sampling},
            text=text,
            thinking=thinking,
            answer=answer,
            tokens=meta["completion_tokens"],
            thinking_tokens=len(output_ids) if end is None else end,
            finish_reason=reason["type"],
            soft_thinking=own,
        )

    def _prompt_ids(self, message: str) -> list[int]:
        try:
            ids: list[int] = self._tokenizer.apply_chat_template(
                [{"role": "user", "content": message}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        except ValueError as error:
            raise ClientError(f"the chat template fails: {first_line(error)}") from error
        return ids

    def _split(self, text: str, thought_ids: list[int]) -> tuple[str | None, str]:
        """Split after these ids, the last of which end thinking; none are an empty thought."""
        if not thought_ids:
            return "", text
        if text.count(self.think_end) == 1:
            return split(text, self.think_end)
        thought = self._tokenizer.decode(thought_ids, skip_special_tokens=False)
        return split(text, self.think_end, thought.count(self.think_end))

    async def forget_prompts(self) -> bool:
        """Empty the prefix cache."""
        done = await self._engine.tokenizer_manager.flush_cache(timeout_s=_IDLE_WITHIN)
        return bool(done.success)

    def close(self) -> None:
        """Shut the engine down, and with it every child of this process."""
        self._engine.shutdown()


def model_digest(folder: Path) -> str | None:
    """SHA-256 of the config and the weights; None unless they are local files."""
    files = sorted(
        path
        for pattern in ("config.json", "*.safetensors", "*.bin")
        for path in folder.glob(pattern)
    )
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            while block := file.read(16 * _MIB):
                digest.update(block)
    return digest.hexdigest()
