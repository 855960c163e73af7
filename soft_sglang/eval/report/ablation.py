"""How much of the token saving is Cold Stop, and how much the mixtures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from soft_sglang.eval.measurements import BASELINE
from soft_sglang.eval.report import markdown
from soft_sglang.eval.statistics import Estimate
from soft_sglang.eval.summaries import Summary

_INDISTINGUISHABLE = "not distinguishable"
_PERCENT = " % of CoT's tokens"


@dataclass(frozen=True)
class Step:
    """From one arm to another.

    Attributes:
        changes: what the step adds.
    """

    changes: str
    arm: str
    reference: str


TOTAL = Step("Soft Thinking with Cold Stop", "soft", BASELINE)
ALONE = (
    Step("Cold Stop alone", "cold_stop_only", BASELINE),
    Step("mixtures alone", "soft_no_cold_stop", BASELINE),
)
GREEDY = Step("greedy alone", "cot_greedy", BASELINE)
BESIDE_GREEDY = Step("mixtures beside greedy", "soft_no_cold_stop", "cot_greedy")
STEPS = (
    TOTAL,
    *ALONE,
    Step("mixtures, where Cold Stop is on already", "soft", "cold_stop_only"),
    Step("Cold Stop, where mixtures are on already", "soft", "soft_no_cold_stop"),
    GREEDY,
    BESIDE_GREEDY,
)
"""The first is the sum of the second and the fourth, and of the third and the fifth; the third is
the sum of the sixth and the seventh."""

_TWO_CHANGES = (
    '"Mixtures alone" changes two things: the token that a step emits is the heaviest one instead '
    "of a drawn one, and what the model reads is the mixture instead of that token."
)
_DIVIDED = (
    '"Greedy alone" has the first of them (and a greedy answer), "mixtures beside greedy" is what '
    "mixtures change against the greedy decoding that Soft Thinking resembles (arXiv 2508.03440)."
)


def ablation(summaries: Mapping[str, Summary]) -> list[str]:
    """Table and paragraph for one dataset, or for an average, in Markdown.

    Steps whose arms are missing are left out; nothing is left without the baseline.
    """
    steps = [s for s in STEPS if {s.arm, s.reference, BASELINE} <= summaries.keys()]
    if not steps:
        return []
    rows = [
        [
            _capital(step.changes),
            f"`{step.arm}` − `{step.reference}`",
            markdown.change_with_interval(_tokens(step, summaries)),
            markdown.change_with_interval(_accuracy(step, summaries)),
        ]
        for step in steps
    ]
    header = ["step", "arms", "tokens, in % of CoT's", "accuracy, in points"]
    sentences = [_sentence(step, summaries) for step in steps]
    text = [*sentences, *_share(steps, summaries), *_what_mixtures_change(steps)]
    return [markdown.table(header, rows), " ".join(text)]


def _tokens(step: Step, summaries: Mapping[str, Summary]) -> Estimate:
    """In percent of the baseline's, whatever the reference, so that steps add up."""
    difference = summaries[step.arm].tokens - summaries[step.reference].tokens
    return (difference / summaries[BASELINE].tokens).times(100)


def _accuracy(step: Step, summaries: Mapping[str, Summary]) -> Estimate:
    return summaries[step.arm].accuracy - summaries[step.reference].accuracy


def _sentence(step: Step, summaries: Mapping[str, Summary]) -> str:
    tokens, accuracy = _tokens(step, summaries), _accuracy(step, summaries)
    return (
        f"{_capital(step.changes)}: {_said(tokens, _PERCENT, 'saves', 'costs')}; "
        f"accuracy {_said(accuracy, ' points', 'lower by', 'higher by')}."
    )


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _said(estimate: Estimate, unit: str, below: str, above: str) -> str:
    interval = estimate.interval()
    if not interval.defined:
        return f"{_INDISTINGUISHABLE} [{markdown.NONE}]"
    if not interval.excludes(0):
        bounds = f"[{markdown.signed(interval.low)}, {markdown.signed(interval.high)}]"
        return f"{_INDISTINGUISHABLE} {bounds}"
    magnitude = estimate.times(-1 if estimate.value < 0 else 1)
    value, size = markdown.plain(magnitude.value), magnitude.interval()
    bounds = f"[{markdown.plain(size.low)}, {markdown.plain(size.high)}]"
    return f"{below if estimate.value < 0 else above} {value}{unit} {bounds}"


def _what_mixtures_change(steps: Sequence[Step]) -> list[str]:
    if ALONE[1] not in steps:
        return []
    return [_TWO_CHANGES, _DIVIDED] if BESIDE_GREEDY in steps else [_TWO_CHANGES]


def _share(steps: Sequence[Step], summaries: Mapping[str, Summary]) -> list[str]:
    """How much of the saving each part reaches by itself, where there is a saving to share."""
    alone = [step for step in ALONE if step in steps]
    if TOTAL not in steps or not alone:
        return []
    total = _tokens(TOTAL, summaries)
    if total.value >= 0 or not total.interval().excludes(0):
        return ["There is no saving to divide."]
    shares = [
        f"{step.changes} {markdown.with_interval((_tokens(step, summaries) / total).times(100))} %"
        for step in alone
    ]
    return [f"Share of that first saving: {', '.join(shares)}."]
