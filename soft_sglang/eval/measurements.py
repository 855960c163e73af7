"""The raw answers of several runs as arrays: one block per model, dataset and arm.

Here it is decided what may be compared with what: see `read_models`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from soft_sglang.eval.arms import ARMS, SoftDefaults, added_arm, title_of
from soft_sglang.eval.cold_stop import Thresholds, thresholds_in
from soft_sglang.eval.errors import EvaluationError
from soft_sglang.eval.records import (
    Answer,
    Grade,
    Key,
    Run,
    Timing,
    read_answers,
    read_grades,
    read_run,
    read_timings,
)
from soft_sglang.eval.statistics import Floats

BASELINE = "cot"
GRADER = "math_verify"
"""Its verdicts are the report's; those of a judge are shown beside them."""

Verdicts = Mapping[Key, bool]

_COMMON = ("samples", "sampling", "soft_thinking", "seed")
"""Fields of a run that must be the same in all runs of one model and dataset."""


class ReportError(EvaluationError):
    """The runs cannot be reported together; the message says why, and names the folder."""


@dataclass(frozen=True)
class Block:
    """Answers of one arm to one dataset.

    Attributes:
        problems: ids of the dataset's problems in a fixed order; the same in all arms.
        expected: number of answers of a complete block.
        answers: those that have a grade, in the order of `problems`, then samples.
        ungraded: number of answers that have none.
        verdicts: by `GRADER`.
        opinions: verdicts by other graders, by their names.
        timings: of its uninterrupted stretches.
        request: ``soft_thinking`` of its requests; None of an ordinary or unknown arm.
    """

    arm: str
    problems: tuple[str, ...]
    samples: int
    expected: int
    answers: tuple[Answer, ...]
    ungraded: int
    verdicts: Verdicts
    opinions: Mapping[str, Verdicts]
    timings: tuple[Timing, ...]
    request: Mapping[str, Any] | None

    @property
    def title(self) -> str:
        return title_of(self.arm)

    @property
    def complete(self) -> bool:
        return len(self.answers) == self.expected

    @property
    def progress(self) -> str:
        return f"{len(self.answers)}/{self.expected}"

    @cached_property
    def tokens(self) -> Floats:
        """Generated tokens, [problems, samples]; NaN where the answer is missing."""
        return self._array(answer.tokens for answer in self.answers)

    @cached_property
    def correct(self) -> Floats:
        """1 or 0, [problems, samples]; NaN where the answer is missing."""
        return self._array(self.verdicts[answer.key] for answer in self.answers)

    def correct_by(self, grader: str) -> Floats:
        """The same by one of the other graders; NaN also where it has not judged."""
        opinion = self.opinions[grader]
        return self._array(opinion.get(answer.key, np.nan) for answer in self.answers)

    @cached_property
    def thinking_tokens(self) -> Floats:
        """Tokens of thinking, [problems, samples]; NaN where missing or not known."""
        return self._array(
            np.nan if answer.thinking_tokens is None else answer.thinking_tokens
            for answer in self.answers
        )

    @property
    def ends(self) -> Counter[str]:
        """How often soft answers ended thinking in which way; empty for an ordinary arm."""
        return Counter(answer.end for answer in self.answers if answer.end)

    @cached_property
    def thoughts(self) -> list[Answer]:
        """The answers whose entropies are known and that have a step of thinking."""
        return [answer for answer in self.answers if answer.entropies]

    @property
    def thresholds(self) -> Thresholds | None:
        """Of Cold Stop; None where it is off, or the arm is not known."""
        return thresholds_in(self.request) if self.request else None

    @property
    def cut(self) -> int:
        """Answers that reached the limit of new tokens."""
        return sum(answer.finish_reason == "length" for answer in self.answers)

    def _array(self, values: Iterable[float]) -> Floats:
        array = np.full((len(self.problems), self.samples), np.nan)
        rows = {problem: row for row, problem in enumerate(self.problems)}
        for answer, value in zip(self.answers, values, strict=True):
            array[rows[answer.problem], answer.sample] = value
        return array


@dataclass(frozen=True)
class Dataset:
    """Answers to one dataset.

    Attributes:
        blocks: by arm, in the order of the tables.
        thresholds: of Cold Stop in the arms that do not bring their own; None: it is off.
    """

    name: str
    blocks: Mapping[str, Block]
    thresholds: Thresholds | None


@dataclass(frozen=True)
class Model:
    """Everything measured with one model.

    Attributes:
        graders: names of all graders with the version of their rules, `GRADER` first.
        runs: where the datasets come from, in the order given.
    """

    name: str
    datasets: Mapping[str, Dataset]
    graders: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def arms(self) -> list[str]:
        """Arms that any dataset has, in the order of the tables."""
        return _ordered(arm for dataset in self.datasets.values() for arm in dataset.blocks)


@dataclass(frozen=True)
class _Folder:
    path: Path
    run: Run
    answers: Sequence[Answer]
    grades: Sequence[Grade]
    timings: Sequence[Timing]

    @property
    def model(self) -> str:
        return str(self.run.model["name"])


def read_models(folders: Sequence[Path]) -> list[Model]:
    """Read runs and sort them by model, then dataset, then arm.

    Runs of one model are put together, whether they differ in datasets or in arms.

    Raises:
        RecordError: a file is missing or broken.
        ReportError: there is no folder; two runs of models with one name differ in path, weights,
            versions of SGLang or this package, or arguments of the engine; two runs of one model
            and dataset differ in what they must share (samples, sampling, seed, prompt, the dataset
            itself), or have an arm twice; answers do not belong to their run; a grader did not
            judge all by one rule.
    """
    if not folders:
        raise ReportError("no folder of a run is given")
    read = [_read(folder) for folder in folders]
    names = dict.fromkeys(folder.model for folder in read)
    return [_model(name, [folder for folder in read if folder.model == name]) for name in names]


def _read(path: Path) -> _Folder:
    run, answers = read_run(path), [answer.without_texts() for answer in read_answers(path)]
    folder = _Folder(path, run, answers, read_grades(path), read_timings(path))
    datasets = [dataset["name"] for dataset in run.datasets]
    for answer in answers:
        if answer.arm not in run.arms or answer.dataset not in datasets:
            raise ReportError(
                f"{path}: an answer of {answer.arm} to {answer.dataset}, which are not in its run"
            )
        if not 0 <= answer.sample < run.samples:
            raise ReportError(
                f"{path}: {answer.arm} has sample {answer.sample} of problem {answer.problem}, but "
                f"every arm has {run.samples} samples: arms are not compared with different numbers"
            )
    return folder


def _model(name: str, folders: Sequence[_Folder]) -> Model:
    _agree(folders, "the model's path", lambda folder: folder.run.model.get("path"))
    _agree(folders, "the model's weights", lambda folder: folder.run.model.get("digest"))
    for package in ("sglang", "soft_sglang"):
        _agree(folders, f"versions.{package}", lambda folder, p=package: folder.run.versions.get(p))
    _agree(folders, "engine_args", lambda folder: folder.run.engine_args)
    for arm in dict.fromkeys(arm for folder in folders for arm in folder.run.added_arms):
        with_arm = [folder for folder in folders if arm in folder.run.arms]
        _agree(with_arm, f"the arm {arm}", lambda folder, a=arm: folder.run.added_arms.get(a))
    graders = _graders(folders)
    verdicts = {
        grader: {g.key: g.correct for f in folders for g in f.grades if g.grader == grader}
        for grader in graders
    }
    names = dict.fromkeys(d["name"] for folder in folders for d in folder.run.datasets)
    datasets = {dataset: _dataset(dataset, folders, verdicts) for dataset in names}
    described = tuple(f"{grader} (rule {rule})" for grader, rule in graders.items())
    return Model(name, datasets, described, tuple(folder.run for folder in folders))


def _graders(folders: Sequence[_Folder]) -> dict[str, int]:
    """Version of each grader's rule, by its name."""
    rules: dict[str, int] = {}
    for folder in folders:
        for grade in folder.grades:
            if rules.setdefault(grade.grader, grade.rule) != grade.rule:
                raise ReportError(
                    f"{folder.path}: {grade.grader} graded by rule {grade.rule} and by rule "
                    f"{rules[grade.grader]}; grade all runs again by one"
                )
    return {grader: rules[grader] for grader in sorted(rules, key=lambda g: (g != GRADER, g))}


def _dataset(name: str, folders: Sequence[_Folder], verdicts: Mapping[str, Verdicts]) -> Dataset:
    described = {
        folder.path: dataset
        for folder in folders
        for dataset in folder.run.datasets
        if dataset["name"] == name
    }
    sharing = [folder for folder in folders if folder.path in described]
    for field in _COMMON:
        _agree(sharing, f"{field} (for {name})", lambda folder, f=field: getattr(folder.run, f))
    for field in ("digest", "problems"):
        _agree(sharing, f"the {field} of {name}", lambda folder, f=field: described[folder.path][f])
    _agree(sharing, f"the prompt of {name}", lambda folder: folder.run.prompt.get(name))
    problems = {a.problem for folder in sharing for a in folder.answers if a.dataset == name}
    count = described[sharing[0].path]["problems"]
    if len(problems) > count:
        raise ReportError(
            f"{sharing[0].path}: {name} has {count} problems, but {len(problems)} were answered"
        )
    blocks: dict[str, Block] = {}
    for folder in sharing:
        for arm in folder.run.arms:
            if arm in blocks:
                raise ReportError(f"{folder.path}: {arm} on {name} is in another folder as well")
            blocks[arm] = _block(folder, arm, name, tuple(sorted(problems)), count, verdicts)
    thresholds = thresholds_in(sharing[0].run.soft_thinking)
    return Dataset(name, {arm: blocks[arm] for arm in _ordered(blocks)}, thresholds)


def _block(
    folder: _Folder,
    arm: str,
    dataset: str,
    problems: tuple[str, ...],
    count: int,
    verdicts: Mapping[str, Verdicts],
) -> Block:
    answers = [a for a in folder.answers if (a.arm, a.dataset) == (arm, dataset)]
    main = verdicts.get(GRADER, {})
    graded = sorted((a for a in answers if a.key in main), key=lambda answer: answer.key)
    return Block(
        arm=arm,
        problems=problems,
        samples=folder.run.samples,
        expected=count * folder.run.samples,
        answers=tuple(graded),
        ungraded=len(answers) - len(graded),
        verdicts=main,
        opinions={grader: found for grader, found in verdicts.items() if grader != GRADER},
        timings=tuple(t for t in folder.timings if (t.arm, t.dataset) == (arm, dataset)),
        request=_request(folder.run, arm),
    )


def _request(run: Run, name: str) -> Mapping[str, Any] | None:
    """``soft_thinking`` of an arm's requests; None of an ordinary arm or one of another version."""
    if name in run.added_arms:
        arm = added_arm(name, run.added_arms[name])
    elif name in ARMS:
        arm = ARMS[name]
    else:
        return None
    request = arm.soft_thinking(SoftDefaults(**run.soft_thinking))
    return request if isinstance(request, dict) else None


def _agree(folders: Sequence[_Folder], what: str, value: Any) -> None:
    for folder in folders[1:]:
        one, other = value(folders[0]), value(folder)
        if one != other:
            raise ReportError(
                f"{folder.path} and {folders[0].path} are not comparable: {what} is "
                f"{other!r} in one and {one!r} in the other"
            )


def _ordered(arms: Iterable[str]) -> list[str]:
    """Each arm once, in the order of `ARMS`, unknown ones last."""
    order: Iterator[str] = iter(dict.fromkeys(arms))
    place = {arm: index for index, arm in enumerate(ARMS)}
    return sorted(order, key=lambda arm: place.get(arm, len(place)))
