"""Inputs of the kernels, as the server makes them: plans from requests, table rows, logits."""

from dataclasses import dataclass, replace

import torch

from soft_sglang.concept_sampler import plan_batch
from soft_sglang.concept_table import AnswerSampling
from soft_sglang.kernels.concept_step import NOISE_DIRICHLET, NOISE_GUMBEL, NOISE_NONE
from soft_sglang.kernels.sampling import Sampling
from soft_sglang.kernels.table_rows import (
    FORCED_LIMIT,
    INTEGERS,
    MARKER_LIMIT,
    NO_LIMIT,
    NO_TOKEN,
    REALS,
    STATE,
    THINKING,
    TableRows,
)
from soft_sglang.kernels.thinking_step import StepPlan
from soft_sglang.markers import Vocabulary
from soft_sglang.options import ServerOptions
from soft_sglang.parameters import SoftRequest
from soft_sglang.row_parameters import RowParameters

TOP_K_OFF = 1 << 30
"""SGLang's top-k where a request asks for none."""
_NOISE_CODES = {"none": NOISE_NONE, "gumbel": NOISE_GUMBEL, "dirichlet": NOISE_DIRICHLET}


@dataclass(frozen=True)
class Setting:
    """What every request of a batch asks for."""

    temperature: float = 0.6
    top_p: float = 1.0
    top_k: int = TOP_K_OFF
    min_p: float = 0.0
    max_topk: int = 10
    noise: str = "none"

    def plan(self, samples: bool = True) -> StepPlan:
        """The plan of a batch of such requests.

        Args:
            samples: False: another sampler runs too, because some request wants log-probabilities
                or a seed of its own.
        """
        given = {"max_topk": self.max_topk, "noise": self.noise}
        own = {"temperature": self.temperature, "top_p": self.top_p, "min_p": self.min_p}
        request = SoftRequest(given, ServerOptions())
        params = request.resolve(_OneToken(), prompt=(), seed=0, own=own)
        answer = AnswerSampling(self.temperature, self.top_p, self.top_k, self.min_p)
        row = RowParameters(params, self.top_k, answer)
        plan = plan_batch([row], torch.device("cpu"))
        assert plan is not None
        # as under flashinfer, which the GPUs have
        return replace(plan.step, samples=plan.step.samples and samples, joint_filters=False)

    def sampling(self, batch: int, device: torch.device | str) -> Sampling:
        """SGLang's tensors of a batch."""

        def full(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.full((batch,), value, dtype=dtype, device=device)

        return Sampling(
            temperatures=full(self.temperature)[:, None],
            top_ps=full(self.top_p),
            top_ks=full(self.top_k, torch.int32),
            min_ps=full(self.min_p),
        )

    def table(
        self, rows: int, think_end: int, device: torch.device | str, phase: int = THINKING
    ) -> TableRows:
        """A concept table of such requests, all in one phase, without Cold Stop."""
        width = max(32, self.max_topk)
        parameters = {
            "max_topk": self.max_topk,
            "noise": _NOISE_CODES[self.noise],
            "seed": 1234567890123,
            "length_threshold": 256,
            "max_thinking_steps": NO_LIMIT,
            "end_length": 1,
            "forced_length": 1,
            "first_forced": think_end,
            "answer_top_k": self.top_k,
            "gumbel_temperature": 0.5,
            "dirichlet_alpha": 1.0,
            "entropy_threshold": 0.0,
            "answer_temperature": self.temperature,
            "answer_top_p": self.top_p,
            "answer_min_p": self.min_p,
        }

        def filled(names: tuple[str, ...], dtype: torch.dtype) -> torch.Tensor:
            row = torch.tensor([parameters[name] for name in names], dtype=dtype)
            return row.to(device).repeat(rows, 1)

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        def marker(limit: int) -> torch.Tensor:
            row = zeros(rows, limit) + NO_TOKEN
            row[:, 0] = think_end
            return row

        state = zeros(rows, len(STATE))
        state[:, STATE.index("phase")] = phase
        return TableRows(
            ids=zeros(rows, width),
            weights=zeros(rows, width, dtype=torch.float32),
            state=state,
            integers=filled(INTEGERS, torch.int64),
            reals=filled(REALS, torch.float32),
            end_ids=marker(MARKER_LIMIT),
            forced_ids=marker(FORCED_LIMIT),
        )


class _OneToken(Vocabulary):
    """Every text is the token 0."""

    def __init__(self) -> None:
        super().__init__(tokenizer=None, size=1)

    def tokens(self, field: str, text: str, limit: int) -> tuple[int, ...]:
        return (0,)


PAPER = Setting(top_p=0.95, top_k=30, min_p=0.001)
"""The paper's own settings."""
UNFILTERED = Setting()
"""A temperature alone."""
