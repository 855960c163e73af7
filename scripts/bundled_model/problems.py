"""Arithmetic problems, the held-out set, and the thoughts that solve them.

A thought is a line of working. Most problems have two of them, so that the model's distribution
over the next thinking token really has more than one mode::

    43*34=43*30+43*4=1290+172=1462      (the second factor split)
    43*34=40*34+3*34=1360+102=1462      (the first factor split)
"""

import random
from dataclasses import dataclass
from functools import cache

HELD_OUT_SEED = 20250521
HELD_OUT_PAIRS = 400
"""Unordered pairs {a, b}; both orders are held out, which makes 800 problems."""


@dataclass(frozen=True)
class Problem:
    """`left op right`, with op "*" or "+" and non-negative operands."""

    left: int
    op: str
    right: int

    @property
    def answer(self) -> int:
        return self.left * self.right if self.op == "*" else self.left + self.right

    def thoughts(self) -> tuple[str, ...]:
        """The one or two lines of working, each ending in the answer; the usual one first."""
        return self._sum_thoughts() if self.op == "+" else self._product_thoughts()

    def _sum_thoughts(self) -> tuple[str, ...]:
        return (
            f"{self.left}+{self.right}={self.answer}",
            f"{self.right}+{self.left}={self.answer}",
        )

    def _product_thoughts(self) -> tuple[str, ...]:
        a, b = self.left, self.right
        splits = []
        if b >= 10:
            high, low = b - b % 10, b % 10
            splits.append(f"{a}*{high}+{a}*{low}={a * high}+{a * low}={self.answer}")
        if a >= 10:
            high, low = a - a % 10, a % 10
            splits.append(f"{high}*{b}+{low}*{b}={high * b}+{low * b}={self.answer}")
        return tuple(f"{a}*{b}={split}" for split in splits or [str(self.answer)])


@cache
def held_out_pairs() -> frozenset[tuple[int, int]]:
    """The ordered pairs that training never sees, closed under exchange of the factors.

    Pairs of equal factors and pairs with a multiple of ten are never held out: the latter appear
    as steps inside other problems' thoughts, so holding them out would mean little.
    """
    plain = [n for n in range(10, 100) if n % 10]
    unordered = [(a, b) for a in plain for b in plain if a < b]
    chosen = random.Random(HELD_OUT_SEED).sample(unordered, HELD_OUT_PAIRS)
    return frozenset(chosen) | frozenset((b, a) for a, b in chosen)


def held_out_problems() -> list[Problem]:
    """The 800 held-out products, in ascending order."""
    return [Problem(a, "*", b) for a, b in sorted(held_out_pairs())]


def training_problem(rng: random.Random) -> Problem:
    """Draws one problem: 72 % two-digit products, the rest one-digit factors and sums."""
    share = rng.random()
    if share < 0.72:
        while True:
            a, b = rng.randint(10, 99), rng.randint(10, 99)
            if (a, b) not in held_out_pairs():
                return Problem(a, "*", b)
    if share < 0.84:
        two_digits, one_digit = rng.randint(10, 99), rng.randint(0, 9)
        if rng.random() < 0.5:
            return Problem(two_digits, "*", one_digit)
        return Problem(one_digit, "*", two_digits)
    if share < 0.89:
        return Problem(rng.randint(0, 9), "*", rng.randint(0, 9))
    limit = rng.choice((9, 99, 999, 999))
    return Problem(rng.randint(0, limit), "+", rng.randint(0, limit))
