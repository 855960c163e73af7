"""Times of calls on a device, on data that no cache holds."""

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

Call = Callable[[], Any]
_MOST_ROUNDS = 60


@dataclass(frozen=True)
class Timing:
    """Microseconds of one call: quartiles over the rounds."""

    lower: float
    median: float
    upper: float
    rounds: int
    method: str
    """``graph``: replays of a CUDA graph. ``stream``: launched one by one, so that small calls
    show the time of their launches. ``clock``: the wall clock of a CPU."""

    @classmethod
    def of(cls, rounds: Sequence[float], method: str) -> "Timing":
        """Quartiles of at least two rounds."""
        quartiles = statistics.quantiles(rounds, n=4, method="inclusive")
        return cls(*quartiles, rounds=len(rounds), method=method)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Timer(ABC):
    """Times calls that do the same work on different data."""

    def __init__(self, device: torch.device, seconds: float, least_rounds: int = 7) -> None:
        """``seconds``: what one measurement may take, apart from its warm-up and least rounds."""
        self.device = device
        self._seconds = seconds
        self._least_rounds = least_rounds

    @property
    @abstractmethod
    def cache_bytes(self) -> int:
        """Size of the last cache before the device's memory."""

    def copies(self, call_bytes: int) -> int:
        """How many sets of data to call on."""
        return min(max(-(-2 * self.cache_bytes // max(call_bytes, 1)), 4), 64)

    @abstractmethod
    def time(self, calls: Sequence[Call]) -> Timing:
        """Of one of the calls."""

    def _rounds(self, run_once: Callable[[], float]) -> list[float]:
        deadline = time.monotonic() + self._seconds
        rounds: list[float] = []
        while len(rounds) < self._least_rounds or (
            len(rounds) < _MOST_ROUNDS and time.monotonic() < deadline
        ):
            rounds.append(run_once())
        return rounds


class CudaTimer(Timer):
    """With events around replays of one CUDA graph that holds all the calls."""

    def __init__(self, device: torch.device, seconds: float, least_rounds: int = 7) -> None:
        super().__init__(device, seconds, least_rounds)
        # read between rounds; reading leaves no dirty lines that a later call would write back
        elements = 2 * self.cache_bytes // 4
        self._other_data = torch.randn(elements, device=device)

    @property
    def cache_bytes(self) -> int:
        return torch.cuda.get_device_properties(self.device).L2_cache_size

    def time(self, calls: Sequence[Call]) -> Timing:
        self._warm_up(calls)
        run, method = self._captured(calls)
        run()
        torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

        def run_once() -> float:
            self._other_data.amax()
            torch.cuda._sleep(2_000_000)  # the host gets ahead of the device meanwhile
            begin.record()
            run()
            end.record()
            end.synchronize()
            return 1000 * begin.elapsed_time(end) / len(calls)

        return Timing.of(self._rounds(run_once), method)

    def _warm_up(self, calls: Sequence[Call]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for call in calls:
                call()
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.synchronize()

    def _captured(self, calls: Sequence[Call]) -> tuple[Call, str]:
        def run_all() -> None:
            for call in calls:
                call()

        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                run_all()
        except RuntimeError:  # synchronises or allocates in ways that a graph cannot hold
            torch.cuda.synchronize()
            return run_all, "stream"
        return graph.replay, "graph"


class CpuTimer(Timer):
    """With the wall clock."""

    @property
    def cache_bytes(self) -> int:
        return 32 << 20

    def copies(self, call_bytes: int) -> int:
        return min(super().copies(call_bytes), 8)

    def time(self, calls: Sequence[Call]) -> Timing:
        for call in calls[:2]:
            call()
        number = 0

        def run_once() -> float:
            nonlocal number
            number += 1
            begin = time.perf_counter()
            calls[number % len(calls)]()
            return 1e6 * (time.perf_counter() - begin)

        return Timing.of(self._rounds(run_once), "clock")
