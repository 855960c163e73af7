"""The sentences in which a user asks for the result of a problem, by form of the problem.

They lie in ``templates.json``. Training templates are small grammars: ``[one|another]`` draws one
of its parts. Held-out templates are written out, and none is a text that a training template can
make. ``{a}`` to ``{d}`` are numbers, ``{N}``, ``{M}`` people, ``{I}``, ``{J}`` things, ``{E}``
the problem as an expression, ``{1}`` and ``{2}`` what is done with the second and third number.
"""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from problems import Fold, Problem, draw, parse

WORLD = json.loads((Path(__file__).parent / "templates.json").read_text())
NAMES, THINGS = WORLD["names"], WORLD["things"]

PRACTICE = ("x+y", "x+y", "x-y", "x-y", "p*t")

SIGNS = ({"*": "*", "+": "+", "-": "-"},) * 3 + (
    {"*": " * ", "+": " + ", "-": " - "},
    {"*": " times ", "+": " plus ", "-": " minus "},
    {"*": " x ", "+": " + ", "-": " - "},
)

BEFORE = (
    "Please reason step by step, and put your final answer within \\boxed{}.\n\n",
    "Hi! ",
    "Question: ",
    "Solve the problem.\n",
)
AFTER = (
    "\nPlease reason step by step, and put your final answer within \\boxed{}.",
    " Please reason step by step, and put your final answer within \\boxed{}.",
    " Think step by step.",
    " Answer with a number.",
    " Thanks!",
)
AROUND_SHARE = 0.05
"""Share of the training questions with such a text before them, and likewise after."""
BABBLE_SHARE = 0.02


@dataclass(frozen=True)
class Templates:
    """The questions for some forms of problems."""

    forms: list[str]
    training: list[str]
    validation: list[str]
    test: list[str]

    def of(self, fold: Fold) -> list[str]:
        return {"training": self.training, "validation": self.validation, "test": self.test}[fold]


TEMPLATES = tuple(Templates(**group) for group in WORLD["groups"])

MORE = ("finds {} more", "gets {} more", "buys {} more", "wins {}", "adds {}", "finds {}")
LESS = ("gives away {}", "loses {}", "sells {}", "breaks {}", "takes away {}", "gives {} to {M}")


@dataclass(frozen=True)
class Question:
    """A question in words, its problem, and the template that it was made with."""

    text: str
    problem: Problem
    template: str


def ask(fold: Fold, rng: random.Random, templates: Fold | None = None) -> Question:
    """Draws a question of a fold: its problem and, unless `templates` says otherwise, its template.

    A third are bare expressions; the stories share the rest evenly by form.
    """
    group = TEMPLATES[0] if rng.random() < 1 / 3 else rng.choice(TEMPLATES[1:])
    return fill(rng.choice(group.of(templates or fold)), rng.choice(group.forms), fold, rng)


def practice(rng: random.Random) -> Question:
    """Draws a bare training expression with a single operation, as steps of other problems have."""
    return fill(rng.choice(TEMPLATES[0].training), rng.choice(PRACTICE), "training", rng)


def fill(template: str, form: str, fold: Fold, rng: random.Random) -> Question:
    """Draws a problem of `form` that belongs to `fold`, and words for it."""
    while True:
        numbers = draw(form, rng)
        if parse(form, numbers).fold == fold:
            break
    text = expand(template, rng)
    ordered = parse(as_asked(form, text), numbers)
    names, things = rng.sample(NAMES, 2), rng.sample(THINGS, 2)
    signs = rng.choice(SIGNS)
    for place, change in enumerate(re.findall("[+-]", form), start=1):
        action = rng.choice(MORE if change == "+" else LESS)
        text = text.replace(f"{{{place}}}", action.replace("{}", "{" + "abcd"[place] + "}"))
    words = dict(zip("NMIJ", names + things, strict=True))
    words["E"] = re.sub("[*+-]", lambda sign: signs[sign[0]], str(ordered))
    words |= {
        slot: str(numbers[letter]) for slot, letter in zip("abcd", sorted(numbers), strict=False)
    }
    text = re.sub(r"\{(\w)\}", lambda slot: words[slot[1]], text)
    return Question(text[0].upper() + text[1:], ordered, template)


def expand(template: str, rng: random.Random) -> str:
    """Draws one part of each ``[...|...]``."""
    return re.sub(r"\[([^]]*)\]", lambda part: rng.choice(part[1].split("|")), template)


def as_asked(form: str, text: str) -> str:
    """The form with the factors of each product in the order in which the text names them."""

    def exchange(product: re.Match[str]) -> str:
        left, right = product[0].split("*")
        first, second = text.find(f"{{{left}}}"), text.find(f"{{{right}}}")
        return f"{right}*{left}" if second < first else product[0]

    return re.sub(r"[a-z]\*[a-z]", exchange, form)


def surround(text: str, rng: random.Random) -> str:
    """Now and then puts text around a training question that says nothing about it."""
    if rng.random() < AROUND_SHARE:
        text = rng.choice(BEFORE) + text
    if rng.random() < AROUND_SHARE:
        text += rng.choice(AFTER)
    if rng.random() < BABBLE_SHARE:
        text = f"{babble(rng)} {text}"
    return text


def babble(rng: random.Random) -> str:
    """Meaningless words, so that unknown text before a question does not throw the model."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(1, 8))) for _ in range(rng.randint(1, 6))]
    return " ".join(words) + rng.choice((".", ":", ",", "\n", ""))
