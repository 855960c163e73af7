"""The soft requests of these tests, and the same without soft thinking.

On this model's weights none of them comes near a tie, or lets rounding errors grow.
"""

from dataclasses import replace
from typing import Any

from oracle import Request

PLAIN = Request([181, 107, 105], steps=28, temperature=0.7, max_topk=4)
"""Thinks to the end."""
COLD = replace(PLAIN, entropy_threshold=6.0, length_threshold=10)
"""Cold Stop ends thinking with the tenth token."""
NATURAL = Request([117, 142, 199, 105, 164], steps=40, temperature=0.7, max_topk=4)
"""With :data:`TOWARDS_THE_END` the model itself ends thinking, with the 22nd token."""
TOWARDS_THE_END = {"3": 1.5}
"""A logit bias."""


def one_token(request: Request) -> Request:
    """The request with concepts of one token: greedy decoding, by the soft path."""
    return replace(request, max_topk=1)


def greedy(request: Request, **more: Any) -> dict[str, Any]:
    """Sampling parameters of the discrete request that decodes greedily."""
    return {"temperature": 0, "max_new_tokens": request.steps, "ignore_eos": True, **more}
