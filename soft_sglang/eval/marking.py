"""Grades the answers of a run that are not graded yet."""

import os
from pathlib import Path

from soft_sglang.eval.grading import GRADER, RULE
from soft_sglang.eval.grading_workers import GradingWorkers
from soft_sglang.eval.progress import answer_bar
from soft_sglang.eval.records import GRADES, Grade, Lines, read_answers, read_grades


def grade_all(folder: Path) -> None:
    """Grade with ``math-verify``; grades of an older rule are superseded, and stay in the file.

    Raises:
        RecordError: the folder's files are broken.
    """
    done = {
        grade.key for grade in read_grades(folder) if (grade.grader, grade.rule) == (GRADER, RULE)
    }
    answers = [(a.key, a.answer, a.truth) for a in read_answers(folder) if a.key not in done]
    if not answers:
        return
    with (
        Lines(folder / GRADES) as grades,
        GradingWorkers(_processes(len(answers))) as workers,
        answer_bar(len(answers), what="grading") as bar,
    ):
        for index, verdict in workers.grade([(answer, truth) for _, answer, truth in answers]):
            grades.append(
                Grade(
                    **answers[index][0]._asdict(),
                    grader=GRADER,
                    rule=RULE,
                    correct=verdict.correct,
                    extracted=verdict.extracted,
                )
            )
            bar.update()


def _processes(answers: int) -> int:
    """One per core, but none for less than some seconds of work."""
    return min(len(os.sched_getaffinity(0)), 8, 1 + answers // 200)
