"""Thoughts: a first derivation in words, then up to three redundant checks in formulas.

The model is made to overthink. While it works the problem out there is a choice every few tokens:
the order of the terms and factors, how a product is split, and which of several words to use. A
check only repeats what is known, in a fixed wording; the choices are whether to check, and how.
"""

import random
from dataclasses import dataclass

from problems import Problem, Step, Term, fold_values, never_negative, splits

OPENERS = ("okay", "alright", "hmm", "so")
TASKS = (" we need", " i need", " it is", " this is")
CONNECTIVES = (" now", " then", " next", " here")
EQUALS = (" is", " gives", " makes", " equals")
STOPS = (".", ",", ";")
CONCLUSIONS = (" so", " thus", " hence")
CHOICES = (*OPENERS, *CONNECTIVES, *EQUALS, *STOPS, *CONCLUSIONS)

AS_GIVEN_SHARE = 0.7
"""How often terms and factors keep the order of the question, and products the usual split."""
CHECK_SHARES = (0.8, 0.65, 0.5, 0.0)
"""How likely one more check is after 0, 1, 2 and 3 of them."""
KINDS = (" again", " otherwise", " backwards")


@dataclass(frozen=True)
class Thought:
    """A thought in its parts; the text is `derivation` and then all `checks`.

    steps: every operation that is written out, as single-operation problems' material.
    """

    derivation: str
    checks: tuple[str, ...]
    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        return self.derivation + "".join(self.checks)


@dataclass(frozen=True)
class Way:
    """One way to solve a problem: its terms in this order, a split (by number) for each term."""

    terms: tuple[Term, ...]
    split: tuple[int, ...]

    def steps(self) -> list[Step]:
        products = []
        for term, number in zip(self.terms, self.split, strict=True):
            if len(term.factors) == 2:
                ways = splits(*term.factors)
                products += ways[number % len(ways)]
        return products + fold_values(self.terms)

    def otherwise(self) -> "Way":
        """The next split of each product; the last term first, if that is possible."""
        order = range(len(self.terms))
        moves = (
            (*order[-1:], *order[:-1]),
            (*order[:-2], *order[:-3:-1]),
            (*order[1::-1], *order[2:]),
            (*order,),
        )
        for move in moves:
            terms = tuple(self.terms[i] for i in move)
            if never_negative(terms):
                return Way(terms, tuple(self.split[i] + 1 for i in move))
        raise AssertionError("the given order is always possible")


def think(problem: Problem, rng: random.Random) -> Thought:
    """Draws a thought that solves `problem`."""
    way = _way(problem, rng)
    stated = Problem(way.terms)
    text = f"{rng.choice(OPENERS)},{rng.choice(TASKS)} {stated}{rng.choice(STOPS)}"
    for step in way.steps():
        text += f"{rng.choice(CONNECTIVES)} {step.left}{step.op}{step.right}"
        text += f"{rng.choice(EQUALS)} {step.result}{rng.choice(STOPS)}"
    text += f"{rng.choice(CONCLUSIONS)} the answer is {problem.answer}."
    kinds = [kind for kind in KINDS if check(kind, way) != way.steps() or kind == " again"]
    rng.shuffle(kinds)
    checks, done = [], way.steps()
    while len(checks) < len(kinds) and rng.random() < CHECK_SHARES[len(checks)]:
        kind = kinds[len(checks)]
        steps = check(kind, way)
        done += steps
        formulas = ", ".join(map(str, steps))
        checks.append(f" wait,{kind}: {formulas}, so the answer is {problem.answer}.")
    return Thought(text, tuple(checks), tuple(done))


def check(kind: str, way: Way) -> list[Step]:
    """The steps of a check: the results once more, another way, or the last step undone."""
    if kind == " otherwise":
        return way.otherwise().steps()
    if kind == " again":
        products = [Step(t.factors[0], "*", t.factors[1]) for t in way.terms if len(t.factors) == 2]
        return products + fold_values(way.terms)
    last = way.steps()[-1]
    if last.op == "*":
        return [Step(last.right, "*", last.left)]
    return [Step(last.result, "+" if last.op == "-" else "-", last.right)]


def _way(problem: Problem, rng: random.Random) -> Way:
    """Terms and factors in the given order or, now and then, in another."""
    terms = problem.terms
    if rng.random() >= AS_GIVEN_SHARE:
        terms = rng.choice(problem.orders())
    exchanged = (
        Term(t.sign, t.factors if rng.random() < AS_GIVEN_SHARE else t.factors[::-1]) for t in terms
    )
    return Way(tuple(exchanged), tuple(int(rng.random() >= AS_GIVEN_SHARE) for _ in terms))
