"""Options of a server or Engine; they apply to all of its requests."""

from dataclasses import dataclass

from soft_sglang.fields import Field, Kind

DEFAULT_CONCEPT_SIZE = 10
DEFAULT_MAX_TOPK = 32
DEFAULT_THINK_START = "<think>"
DEFAULT_THINK_END = "</think>"
MAX_TOPK_LIMIT = 1024


@dataclass(frozen=True)
class ServerOptions:
    """What ``--enable-soft-thinking``, ``--max-topk`` and the markers of thinking set."""

    enable_soft_thinking: bool = False
    """Every request is soft unless it says otherwise."""
    max_topk: int = DEFAULT_MAX_TOPK
    """Largest ``max_topk`` a request may ask for; the width of the concept table."""
    think_end_str: str = DEFAULT_THINK_END
    """Default of the request parameter of the same name."""
    think_start_str: str = DEFAULT_THINK_START
    """Likewise."""
    default_max_topk: int | None = None
    """Default of the request parameter ``max_topk``; None: 10, or ``max_topk`` if smaller."""
    default_noise: str = "none"
    """Default of the request parameter ``noise``."""

    required: bool = False
    """The start fails where soft thinking is impossible; otherwise only soft requests do."""

    def __post_init__(self) -> None:
        Field("max_topk", Kind.INTEGER, low=1, high=MAX_TOPK_LIMIT).check(self.max_topk)
        Field("think_end_str", Kind.TEXT).check(self.think_end_str)
        Field("think_start_str", Kind.TEXT).check(self.think_start_str)

    @property
    def concept_size(self) -> int:
        """``max_topk`` of a request that does not give one."""
        wanted = self.default_max_topk or DEFAULT_CONCEPT_SIZE
        return min(wanted, self.max_topk)
