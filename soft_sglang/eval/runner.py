"""Asks what a plan asks and is not answered yet, and writes every answer down as it comes."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from soft_sglang.eval.arms import Arm
from soft_sglang.eval.client import Client, ClientError
from soft_sglang.eval.concurrency import for_each
from soft_sglang.eval.datasets import Dataset, Problem
from soft_sglang.eval.plan import Plan
from soft_sglang.eval.progress import answer_bar
from soft_sglang.eval.records import ANSWERS, TIMES, Answer, Key, Lines, Timing, read_answers
from soft_sglang.eval.separation import is_closed

_TRIAL_TOKENS = 4
_CLOSED = (
    "the prompt closes the thought before it begins, as some models' chat templates do by default; "
    "there is no thinking to compare"
)
_WARM_CACHE = (
    "The prefix cache cannot be emptied between arms (the server is busy with others, wants an "
    "admin key, or has no /flush_cache): later arms find their prompts there, and seem faster."
)


async def answer_all(client: Client, plan: Plan, folder: Path, concurrency: int) -> None:
    """Complete a run.

    Args:
        client: whom to ask.
        plan: what to ask.
        folder: of the run; answers that are in it already are kept and not asked again.
        concurrency: how many requests are under way at a time, at most.

    Raises:
        ClientError: a request failed; what was answered before is in the folder.
        RecordError: the folder's answers are broken.
    """
    done = {answer.key for answer in read_answers(folder)}
    warned = False
    blocks = [
        (dataset, arm, [pair for pair in plan.keys(dataset, arm) if pair[0] not in done])
        for dataset, arm in plan.blocks()
    ]
    total = sum(len(plan.keys(dataset, arm)) for dataset, arm in plan.blocks())
    missing = sum(len(keys) for *_, keys in blocks)
    if missing:
        await _try_every_arm(client, plan)
    with (
        Lines(folder / ANSWERS) as answers,
        Lines(folder / TIMES) as times,
        answer_bar(total, total - missing) as bar,
    ):
        for dataset, arm, keys in blocks:
            if keys:
                if not await client.forget_prompts() and not warned:
                    warned = True
                    bar.write(_WARM_CACHE, file=sys.stderr)
                bar.set_description(f"{dataset.name} {arm.name}")
                block = _Block(client, plan, dataset, arm, answers, bar)
                await block.run(keys, concurrency)
                times.append(block.timing())  # of one that is broken off, tokens would be missing


async def _try_every_arm(client: Client, plan: Plan) -> None:
    """Ask once per arm, for a few tokens, and forget the answers.

    A request that is refused is refused before anything is written, and what the first request of
    a kind compiles is no part of an arm's time. Nor is anything written if there is no thinking.
    """
    dataset = plan.datasets[0]
    problem = dataset.problems[0]
    tokens = min(_TRIAL_TOKENS, plan.sampling.max_new_tokens)
    short = replace(plan, sampling=replace(plan.sampling, max_new_tokens=tokens))
    for arm in plan.arms:
        question = short.question(arm, Key(arm.name, dataset.name, problem.id, 0), problem)
        try:
            output = await client.ask(question)
        except ClientError as error:
            raise ClientError(f"arm {arm.name}: {error}") from error
        if is_closed(output.soft_thinking):
            raise ClientError(f"arm {arm.name}: {_CLOSED}")


class _Block:
    """One arm on one dataset, in one session."""

    def __init__(
        self,
        client: Client,
        plan: Plan,
        dataset: Dataset,
        arm: Arm,
        lines: Lines,
        bar: "tqdm[None]",
    ) -> None:
        self._client = client
        self._plan = plan
        self._dataset = dataset
        self._arm = arm
        self._lines = lines
        self._bar = bar
        self._began = time.perf_counter()
        self.answers = 0
        self._tokens = 0

    async def run(self, keys: Sequence[tuple[Key, Problem]], concurrency: int) -> None:
        """Answer these."""
        await for_each(keys, self._answer, concurrency)

    async def _answer(self, of: tuple[Key, Problem]) -> None:
        key, problem = of
        question = self._plan.question(self._arm, key, problem)
        began = time.perf_counter()
        output = await self._client.ask(question)
        self._lines.append(
            Answer(
                **key._asdict(),
                seed=question.seed,
                question=problem.question,
                truth=problem.truth,
                request=output.request,
                text=output.text,
                thinking=output.thinking,
                answer=output.answer,
                tokens=output.tokens,
                thinking_tokens=output.thinking_tokens,
                finish_reason=output.finish_reason,
                soft_thinking=output.soft_thinking,
                seconds=time.perf_counter() - began,
                finished_at=time.time(),
            )
        )
        self.answers += 1
        self._tokens += output.tokens
        self._bar.update()

    def timing(self) -> Timing:
        """Of what was answered."""
        return Timing(
            arm=self._arm.name,
            dataset=self._dataset.name,
            answers=self.answers,
            tokens=self._tokens,
            seconds=time.perf_counter() - self._began,
        )
