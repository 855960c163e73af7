"""The ways in which a user asks for the result of a problem."""

import random

from problems import Problem

PLAIN = "What is {}?"
"""The phrasing of the headline evaluation."""

EXPRESSION = (
    PLAIN,
    PLAIN,
    "{}=?",
    "{}=",
    "{}",
    "{} = ?",
    "Compute {}.",
    "Calculate {}.",
    "What's {}?",
    "How much is {}?",
    "Solve {}.",
    "Evaluate {}",
    "Find {}.",
    "Tell me {}",
    "What does {} equal?",
    "Please compute {}.",
    "Can you calculate {}?",
)
PRODUCT_SIGNS = ("*", "*", " * ", " * ", "x", " x ", " times ", " times ", " multiplied by ")
SUM_SIGNS = ("+", "+", " + ", " plus ")
PRODUCT_WORDS = (
    "Multiply {} by {}.",
    "Multiply {} and {}.",
    "Find the product of {} and {}.",
    "What is the product of {} and {}?",
)
SUM_WORDS = (
    "Add {} and {}.",
    "Add {} to {}.",
    "Find the sum of {} and {}.",
    "What is the sum of {} and {}?",
)
BEFORE = ("Hi! ", "Hello, ", "Question: ", "Q: ", "Please help me. ", "Solve the problem.\n")
AFTER = (
    " Please reason step by step, and put your final answer within \\boxed{}.",
    "\nPlease reason step by step, and put your final answer within \\boxed{}.",
    " Think step by step.",
    " Answer with a number.",
    " Show your work.",
    " Thanks!",
    "\nAnswer:",
)


def phrase(problem: Problem, rng: random.Random) -> str:
    """Asks for `problem` in a phrasing drawn from `rng`, now and then with text around it."""
    product = problem.op == "*"
    if rng.random() < 0.15:
        words = rng.choice(PRODUCT_WORDS if product else SUM_WORDS)
        text = words.format(problem.left, problem.right)
    else:
        sign = rng.choice(PRODUCT_SIGNS if product else SUM_SIGNS)
        text = rng.choice(EXPRESSION).format(f"{problem.left}{sign}{problem.right}")
    if rng.random() < 0.05:
        text = rng.choice(BEFORE) + text
    if rng.random() < 0.05:
        text += rng.choice(AFTER)
    if rng.random() < 0.04:
        text = f"{babble(rng)} {text}"
    return text


def babble(rng: random.Random) -> str:
    """Meaningless words, so that unknown text before a question does not throw the model."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(1, 8))) for _ in range(rng.randint(1, 6))]
    return " ".join(words) + rng.choice((".", ":", ",", "\n", ""))
