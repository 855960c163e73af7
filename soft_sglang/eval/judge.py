"""A language model as judge: an opinion beside ``math-verify``'s, the same for every arm."""

import re
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai

from soft_sglang.eval.client import ClientError
from soft_sglang.eval.concurrency import for_each
from soft_sglang.eval.errors import first_line
from soft_sglang.eval.progress import answer_bar
from soft_sglang.eval.records import GRADES, Answer, Grade, Lines, read_answers, read_grades

RULE = 1
"""Version of the prompt and of how a reply is read."""

PROMPT = """\
You are grading an exam. Decide whether the student's final answer is equivalent to the true \
answer. Do not solve the problem yourself; the true answer is right. Only the final answer counts, \
not how it was found. If there is no final answer, it is incorrect.

Problem:
{question}

True answer:
{truth}

Student's answer:
{answer}

Reply with one word on a line of its own: CORRECT or INCORRECT."""

_VERDICT = re.compile(r"\b(IN)?CORRECT\b")


@dataclass(frozen=True)
class Judge:
    """A model behind OpenAI's interface."""

    url: str
    """With or without ``/v1``."""
    model: str
    api_key: str
    concurrency: int
    max_tokens: int

    @property
    def grader(self) -> str:
        """Its name in the grades."""
        return f"llm_judge:{self.model}"


async def judge_all(folder: Path, judge: Judge) -> None:
    """Judge every answer that this judge has not judged.

    The judge sees the text after thinking and never the arm, at temperature 0. An empty answer is
    incorrect without being asked about. A reply without a verdict is incorrect, and the grade's
    ``extracted`` holds the reply's end.

    Raises:
        ClientError: the judge does not answer; what was judged before is in the folder.
        RecordError: the folder's files are broken.
    """
    done = {
        grade.key
        for grade in read_grades(folder)
        if (grade.grader, grade.rule) == (judge.grader, RULE)
    }
    answers = [answer for answer in read_answers(folder) if answer.key not in done]
    if not answers:
        return
    client = openai.AsyncOpenAI(
        base_url=f"{judge.url.rstrip('/').removesuffix('/v1')}/v1",
        api_key=judge.api_key,
        timeout=httpx.Timeout(3600, connect=20),
    )
    with (
        Lines(folder / GRADES) as grades,
        answer_bar(len(answers), what=judge.grader) as bar,
    ):

        async def judge_one(answer: Answer) -> None:
            reply = await _ask(client, judge, answer) if answer.answer.strip() else "INCORRECT"
            correct = verdict(reply)
            grades.append(
                Grade(
                    **answer.key._asdict(),
                    grader=judge.grader,
                    rule=RULE,
                    correct=bool(correct),
                    extracted=None if correct is not None else reply[-200:],
                )
            )
            bar.update()

        await for_each(answers, judge_one, judge.concurrency)


def verdict(reply: str) -> bool | None:
    """The last verdict of a reply, after the judge's own thinking; None: there is none."""
    found = _VERDICT.findall(reply.rpartition("</think>")[2])
    return found[-1] == "" if found else None


async def _ask(client: openai.AsyncOpenAI, judge: Judge, answer: Answer) -> str:
    prompt = PROMPT.format(question=answer.question, truth=answer.truth, answer=answer.answer)
    try:
        response = await client.chat.completions.create(
            model=judge.model,
            messages=[{"role": "user", "content": prompt}],
            temperature=0,
            max_tokens=judge.max_tokens,
        )
    except openai.OpenAIError as error:
        raise ClientError(
            f"the judge at {judge.url} does not answer: {first_line(error)}"
        ) from error
    return response.choices[0].message.content or ""
