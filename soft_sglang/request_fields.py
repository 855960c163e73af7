"""The parameters of a soft request that do not depend on which policies there are."""

from soft_sglang.fields import Field, Kind
from soft_sglang.options import ServerOptions

NOISES = ("none", "gumbel", "dirichlet")
STARTS = ("auto", "thinking", "answer")
POLICY = "policy"
"""The parameter that names a policy; what it may be is known where the policies are."""

_INT32_MAX = 2**31 - 1


def own_fields(options: ServerOptions) -> tuple[Field, ...]:
    """Every parameter but the policy and those of policies, for a server with these options."""
    return (
        Field("enabled", Kind.BOOLEAN, default=True),
        Field("max_topk", Kind.INTEGER, low=1, high=options.max_topk, default=options.concept_size),
        Field("early_stopping_entropy_threshold", Kind.NUMBER, low=0, high=1e6, default=0.01),
        Field("early_stopping_length_threshold", Kind.INTEGER, low=1, high=_INT32_MAX, default=256),
        Field("start", Kind.CHOICE, choices=STARTS, default="auto"),
        Field("think_start_str", Kind.TEXT, default=options.think_start_str),
        Field("rethink", Kind.BOOLEAN, default=False),
        Field("think_end_str", Kind.TEXT, default=options.think_end_str),
        Field("think_end_first_token", Kind.BOOLEAN, default=False),
        Field("cold_stop_str", Kind.TEXT),
        Field("max_thinking_steps", Kind.INTEGER, low=0, high=_INT32_MAX),
        Field("stop_in_thinking", Kind.BOOLEAN, default=True),
        Field("after_thinking_temperature", Kind.NUMBER, low=0, high=1e6),
        Field("after_thinking_top_p", Kind.NUMBER, above=0, high=1),
        Field("after_thinking_top_k", Kind.INTEGER, low=1, high=_INT32_MAX, also=-1),
        Field("after_thinking_min_p", Kind.NUMBER, low=0, high=1),
        Field("noise", Kind.CHOICE, choices=NOISES, default=options.default_noise),
        Field("gumbel_softmax_temperature", Kind.NUMBER, low=1e-6, high=1e6, default=0.5),
        Field("dirichlet_alpha", Kind.NUMBER, low=1e-6, high=1e6, default=1.0),
        Field("return_concepts", Kind.BOOLEAN, default=False),
        Field("return_entropies", Kind.BOOLEAN, default=False),
    )
