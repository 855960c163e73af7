"""Random inputs of the kernels' tests, from a seed that ``SOFT_SGLANG_TEST_SEED`` sets."""

import hashlib
import os

import torch

SEED = int(os.environ.get("SOFT_SGLANG_TEST_SEED", "0"))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""Where the kernels run: interpreted on the CPU."""
INF = float("inf")

KINDS = ("flat", "ordinary", "peaked", "few values", "equal", "masked", "signed zeros")


def generator(*key: object) -> torch.Generator:
    """A generator of its own for every test and parameter set."""
    digest = hashlib.sha256(repr((SEED, *key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


def random_logits(
    kind: str, rows: int, vocab: int, dtype: torch.dtype, rng: torch.Generator
) -> torch.Tensor:
    """``[rows, vocab]`` on the CPU."""
    normal = torch.randn(rows, vocab, generator=rng)
    match kind:
        case "flat":
            logits = 0.01 * normal
        case "ordinary":
            logits = 3 * normal + 10
        case "peaked":
            logits = 15 * normal - 20
        case "few values":
            logits = torch.randint(0, 4, (rows, vocab), generator=rng).float()
        case "equal":
            logits = torch.full((rows, vocab), 7.25)
        case "masked":
            forbidden = torch.rand(rows, vocab, generator=rng) < 0.9
            forbidden[:, vocab // 2] = False
            logits = (3 * normal).masked_fill(forbidden, -INF)
        case "signed zeros":  # the largest logits are zeros of both signs
            logits = -torch.randint(0, 3, (rows, vocab), generator=rng).float()
            logits[:, ::2] = logits[:, ::2].abs().neg()  # -0.0 in even columns
            logits[:, 1::2] += 0.0  # 0.0 in odd ones
        case _:
            raise ValueError(kind)
    return logits.to(dtype)


def strided(logits: torch.Tensor, layout: str) -> torch.Tensor:
    """The same logits on the device, in the middle of NaN that would be noticed."""
    rows, vocab = logits.shape

    def around(*shape: int) -> torch.Tensor:
        return torch.full(shape, torch.nan, dtype=logits.dtype, device=DEVICE)

    views = {
        "contiguous": lambda: torch.empty_like(logits, device=DEVICE),
        "every second column": lambda: around(rows, 2 * vocab)[:, ::2],
        "padded vocabulary": lambda: around(rows, vocab + 24)[:, 8 : 8 + vocab],
        "odd row stride": lambda: around(rows, vocab + 1)[:, :vocab],
        "every third row": lambda: around(3 * rows, vocab)[1::3],
        "transposed": lambda: around(vocab, rows).T,
    }
    view = views[layout]()
    view.copy_(logits)
    return view


LAYOUTS = (
    "contiguous",
    "every second column",
    "padded vocabulary",
    "odd row stride",
    "every third row",
    "transposed",
)
