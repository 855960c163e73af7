"""The held-out questions: problems and templates that training never sees.

Run: ``python scripts/bundled_model/held_out.py`` writes the test set beside the model, one JSON
object a line: ``{"problem": id, "question": text, "answer": "42"}``. The recipe and the thresholds
were chosen on the validation set, which has problems and templates of its own.
"""

import json
import random
from pathlib import Path

from phrasings import Question, ask
from problems import Fold

SHIPPED = Path(__file__).parents[2] / "soft_sglang" / "bundled_model"
TEST_SET = SHIPPED / "held_out.jsonl"
TEST_SIZE = 1200
SEEDS = {"validation": 1, "test": 2}


def held_out(fold: Fold, size: int, templates: Fold | None = None) -> list[Question]:
    """`size` questions about different problems, fixed by the folds of problems and templates."""
    rng = random.Random(SEEDS[fold])
    questions: dict[str, Question] = {}
    while len(questions) < size:
        question = ask(fold, rng, templates)
        questions.setdefault(str(question.problem), question)
    return list(questions.values())


def main() -> None:
    with TEST_SET.open("w") as file:
        for number, question in enumerate(held_out("test", TEST_SIZE), start=1):
            answer = str(question.problem.answer)
            row = {"problem": f"{number:04}", "question": question.text, "answer": answer}
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
