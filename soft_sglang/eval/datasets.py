"""Problems with their true answers: from the hub, from a file, or the bundled model's own."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soft_sglang.bundled import MODEL_PATH
from soft_sglang.eval.errors import EvaluationError, first_line

BUNDLED = "bundled"
BUNDLED_FILE = Path(MODEL_PATH) / "held_out.jsonl"


class DatasetError(EvaluationError):
    """A dataset cannot be read; the message names the file and the place in it."""


@dataclass(frozen=True)
class Problem:
    """One question and its answer."""

    id: str
    """Unique in its dataset."""
    question: str
    truth: str


@dataclass(frozen=True)
class Dataset:
    """Problems in a fixed order."""

    name: str
    path: str
    """A file, or a dataset of the hub."""
    prompt: str
    """Name of the prompt that suits it."""
    problems: Sequence[Problem]

    def digest(self) -> str:
        """SHA-256 of all problems."""
        content = [[problem.id, problem.question, problem.truth] for problem in self.problems]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def limited(self, limit: int | None) -> "Dataset":
        """At most ``limit`` problems, spread evenly over the dataset, in its order."""
        total = len(self.problems)
        if limit is None or limit >= total:
            return self
        chosen = [self.problems[i * total // limit] for i in range(limit)]
        return Dataset(self.name, self.path, self.prompt, chosen)


# Hub -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HubDataset:
    """Where a dataset lies on the hub, and how a row becomes a problem."""

    path: str
    split: str
    read: Callable[[Mapping[str, Any]], tuple[str, str]]
    """A row's question and truth."""
    config: str | None = None
    id_column: str | None = None
    """None: the number of the row."""
    prompt: str = "math"


def _columns(question: str, answer: str) -> Callable[[Mapping[str, Any]], tuple[str, str]]:
    return lambda row: (str(row[question]), str(row[answer]))


def _gsm8k(row: Mapping[str, Any]) -> tuple[str, str]:
    """The answer follows ``####`` at the end of a worked solution."""
    return str(row["question"]), str(row["answer"]).rsplit("####", 1)[1].strip().replace(",", "")


def _gpqa(row: Mapping[str, Any]) -> tuple[str, str]:
    """Four options in an order that depends on the question alone."""
    right = str(row["Correct Answer"]).strip()
    options = [right, *(str(row[f"Incorrect Answer {i}"]).strip() for i in (1, 2, 3))]
    question = str(row["Question"]).strip()
    random.Random(f"gpqa {question}").shuffle(options)
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", options, strict=True))
    return f"{question}\n\n{listed}", "ABCD"[options.index(right)]


HUB: Mapping[str, HubDataset] = {
    "math500": HubDataset(
        "HuggingFaceH4/MATH-500", "test", _columns("problem", "answer"), id_column="unique_id"
    ),
    "aime2024": HubDataset(
        "HuggingFaceH4/aime_2024", "train", _columns("problem", "answer"), id_column="id"
    ),
    "aime2025": HubDataset("math-ai/aime25", "test", _columns("problem", "answer"), id_column="id"),
    "gsm8k": HubDataset("openai/gsm8k", "test", _gsm8k, config="main"),
    "gpqa_diamond": HubDataset(
        "Idavidrein/gpqa",
        "train",
        _gpqa,
        config="gpqa_diamond",
        id_column="Record ID",
        prompt="choice",
    ),
    "amc23": HubDataset("math-ai/amc23", "test", _columns("question", "answer")),
}
"""By the names that the public implementation uses for its files."""


def named(name: str) -> Dataset:
    """A dataset by name.

    Raises:
        DatasetError: it is unknown, or the hub does not give it.
    """
    if name == BUNDLED:
        return Dataset(BUNDLED, BUNDLED, "none", from_file(BUNDLED_FILE).problems)
    if name not in HUB:
        raise DatasetError(
            f"there is no dataset {name!r}; known are {', '.join([*HUB, BUNDLED])}; "
            "a file is given with --data"
        )
    return from_hub(name, HUB[name])


def from_hub(name: str, source: HubDataset) -> Dataset:
    """Load a dataset with Hugging Face's ``datasets``.

    Raises:
        DatasetError: it cannot be loaded, or has other columns than expected.
    """
    from datasets import load_dataset

    try:
        rows = load_dataset(source.path, source.config, split=source.split)
    except Exception as error:  # of the network, of the hub, of the file system
        raise DatasetError(
            f"{name}: the hub does not give {source.path}: {first_line(error)}"
        ) from error
    problems = []
    for number, row in enumerate(rows):
        try:
            question, truth = source.read(row)
            identity = number if source.id_column is None else row[source.id_column]
        except (KeyError, IndexError) as error:
            raise DatasetError(
                f"{name}: row {number} of {source.path} is not as expected: {error!r}"
            ) from None
        problems.append(Problem(str(identity), question, truth))
    return Dataset(name, source.path, source.prompt, _checked(problems, source.path))


# Files -----------------------------------------------------------------------------------------


def from_file(path: Path) -> Dataset:
    """Read a JSON array or JSON lines.

    An item is as in the public implementation of arXiv 2505.15778, ``{"prompt": [{"from": "user",
    "value": question}], "final_answer": answer}``, or plain: ``question`` (or ``problem``) and
    ``answer``. Its id is its ``id``, its ``problem`` beside a ``question``, or its number. A file
    named like a known dataset gets that one's prompt.

    Raises:
        DatasetError: naming the place and the field.
    """
    problems = [_problem(number, item, place) for number, item, place in _items(path)]
    if not problems:
        raise DatasetError(f"{path} holds no problems")
    known = HUB.get(path.stem)
    return Dataset(
        path.stem, str(path), known.prompt if known else "math", _checked(problems, str(path))
    )


def _items(path: Path) -> Iterator[tuple[int, Any, str]]:
    """Number, content and place of every item."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path} is not UTF-8 text") from None
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except ValueError as error:
            raise DatasetError(f"{path} is not JSON: {error}") from None
        for number, item in enumerate(items):
            yield number, item, f"{path}, item {number + 1}"
        return
    # JSON allows U+2028 and the like in its texts: only a line feed ends a line
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for count, (number, line) in enumerate(lines):
        place = f"{path}, line {number}"
        try:
            yield count, json.loads(line), place
        except ValueError as error:
            raise DatasetError(f"{place} is not JSON: {error}") from None


def _problem(number: int, item: Any, place: str) -> Problem:
    if not isinstance(item, dict):
        raise DatasetError(f"{place} is not an object")
    identity: Any = item.get("id", number)
    if "prompt" in item or "final_answer" in item:
        question, answer = _conversation(item, place), _field(item, "final_answer", place)
    else:
        name = "question" if "question" in item or "problem" not in item else "problem"
        question, answer = _field(item, name, place), _field(item, "answer", place)
        if name == "question":
            identity = item.get("id", item.get("problem", number))
    return Problem(str(identity), question, answer)


def _conversation(item: Mapping[str, Any], place: str) -> str:
    prompt = item.get("prompt")
    if not (
        isinstance(prompt, list)
        and len(prompt) == 1
        and isinstance(prompt[0], dict)
        and prompt[0].get("from") == "user"
    ):
        raise DatasetError(f"{place}: 'prompt' must be a list of one message from 'user'")
    return _field(prompt[0], "value", place)


def _field(item: Mapping[str, Any], name: str, place: str) -> str:
    """A field as text; numbers are taken, too."""
    if name not in item:
        raise DatasetError(f"{place}: the field {name!r} is missing")
    value = item[name]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DatasetError(
            f"{place}: {name!r} must be text or a number, not {type(value).__name__}"
        )
    text = str(value)
    if not text.strip():
        raise DatasetError(f"{place}: {name!r} is empty")
    return text


def _checked(problems: Sequence[Problem], path: str) -> Sequence[Problem]:
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise DatasetError(f"{path}: the id {problem.id!r} is there twice")
        seen.add(problem.id)
    return problems
