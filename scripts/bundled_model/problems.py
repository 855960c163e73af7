"""Arithmetic problems, the honest ways to work them out, and which of them training never sees.

A problem is a signed sum of terms, and a term is a number or a product of two::

    7*48+15      43*34      30+45-12      200-6*23      4*25+3*30
"""

import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

Fold = Literal["training", "validation", "test"]
FOLDS: dict[int, Fold] = {0: "test", 1: "validation"}
"""By remainder of a problem's checksum; all others are training."""
FOLD_COUNT = 16


@dataclass(frozen=True)
class Step:
    """`left op right = result`, with op "*", "+" or "-"."""

    left: int
    op: str
    right: int

    @property
    def result(self) -> int:
        return eval_op(self.left, self.op, self.right)

    def __str__(self) -> str:
        return f"{self.left}{self.op}{self.right}={self.result}"


def eval_op(left: int, op: str, right: int) -> int:
    """The value of one operation."""
    return left * right if op == "*" else left + right if op == "+" else left - right


@dataclass(frozen=True)
class Term:
    """A number or a product of two, added (sign 1) or taken away (sign -1)."""

    sign: int
    factors: tuple[int, ...]

    @property
    def value(self) -> int:
        return self.factors[0] * (self.factors[1] if len(self.factors) == 2 else 1)

    def __str__(self) -> str:
        return "*".join(map(str, self.factors))


@dataclass(frozen=True)
class Problem:
    """Terms whose sum is wanted; the first one is added, and the answer is never negative."""

    terms: tuple[Term, ...]

    @property
    def answer(self) -> int:
        return sum(term.sign * term.value for term in self.terms)

    def __str__(self) -> str:
        first, *rest = self.terms
        return str(first) + "".join("-+"[t.sign > 0] + str(t) for t in rest)

    @property
    def fold(self) -> Fold:
        """Where the problem belongs, whatever the order of its terms and factors.

        A single operation on numbers below ten or on a multiple of ten is always training: it is
        a step inside too many other problems for holding it out to mean anything.
        """
        numbers = [n for term in self.terms for n in term.factors]
        if len(numbers) < 2:
            return "training"
        if len(numbers) == 2 and (max(numbers) < 10 or any(n % 10 == 0 for n in numbers)):
            return "training"
        key = sorted((term.sign, *sorted(term.factors)) for term in self.terms)
        return FOLDS.get(zlib.crc32(repr(key).encode()) % FOLD_COUNT, "training")

    def orders(self) -> list[tuple[Term, ...]]:
        """The orders of the terms in which no partial result is negative, the given one first."""
        return [order for order in permutations(self.terms) if never_negative(order)]


def never_negative(order: tuple[Term, ...]) -> bool:
    """Whether no partial sum of the terms, taken in this order, is negative."""
    total = 0
    for term in order:
        total += term.sign * term.value
        if total < 0:
            return False
    return True


def splits(a: int, b: int) -> list[list[Step]]:
    """The ways to work out a*b with easier products.

    One-digit numbers and multiples of ten are multiplied at once. Else the number that is split
    goes to the tens below, or up to the next ten: 48 = 40+8 = 50-2. Two numbers of two digits are
    split once, at either of them.
    """
    ways = []
    easy = {n for n in (a, b) if n < 10 or n % 10 == 0}
    if len(easy) == 2 or (len(easy) == 1 and a == b):
        return [[Step(a, "*", b)]]
    for whole, parted in ((a, b), (b, a)):
        if parted in easy:
            continue
        ones, below = parted % 10, parted - parted % 10
        first, second = Step(whole, "*", below), Step(whole, "*", ones)
        ways.append([first, second, Step(first.result, "+", second.result)])
        if whole < 10:
            first, second = Step(whole, "*", below + 10), Step(whole, "*", 10 - ones)
            ways.append([first, second, Step(first.result, "-", second.result)])
    return ways


def fold_values(order: tuple[Term, ...]) -> list[Step]:
    """Adds up the terms' values in the given order."""
    steps, total = [], order[0].value
    for term in order[1:]:
        steps.append(Step(total, "-+"[term.sign > 0], term.value))
        total = steps[-1].result
    return steps


def single_operations(steps: list[Step]) -> Iterator[Problem]:
    """Each step as a problem of its own, to see whether it is held out."""
    for step in steps:
        if step.op == "*":
            yield Problem((Term(1, (step.left, step.right)),))
        else:
            yield Problem((Term(1, (step.left,)), Term(1 if step.op == "+" else -1, (step.right,))))


def draw(form: str, rng: random.Random) -> dict[str, int]:
    """Draws numbers for a form such as ``a*b+c``, by letter. The answer is at least 1.

    Of two factors one has one digit and one has two (``p*q``: both have two), in either order.
    ``x`` and ``y`` have two to four digits, ``t`` is a multiple of ten.
    """
    while True:
        numbers: dict[str, int] = {}
        for letter in re.findall("[a-z]", form):
            numbers[letter] = rng.randint(10, 99)
            if letter in "xy":
                numbers[letter] = round(10 ** rng.uniform(1, 3 if rng.random() < 0.9 else 3.7))
            elif letter == "t":
                numbers[letter] = 10 * rng.randint(1, 9)
        for left, right in re.findall(r"([ac])\*([bd])", form):
            numbers[left] = rng.randint(2, 9)
            if rng.random() < 0.3:
                numbers[left], numbers[right] = numbers[right], numbers[left]
        if form == "c-a*b":
            numbers["c"] = numbers["a"] * numbers["b"] + rng.randint(1, 99)
        elif "*" not in form and rng.random() < 0.25:
            numbers["a"] = rng.randint(100, 499)
        if never_negative(parse(form, numbers).terms) and parse(form, numbers).answer > 0:
            return numbers


def parse(form: str, numbers: dict[str, int]) -> Problem:
    """The problem that a form such as ``a*b+c`` makes of numbers."""
    terms = []
    for sign, body in re.findall(r"([+-]?)([a-z*]+)", form):
        factors = tuple(numbers[letter] for letter in body.split("*"))
        terms.append(Term(-1 if sign == "-" else 1, factors))
    return Problem(tuple(terms))
