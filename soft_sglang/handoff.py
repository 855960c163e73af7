"""The first step of a request, on its way from the server that prefills to the one that decodes.

A row of bytes for each request, of the same size on every server of a model, whatever its options:
where a row lies on the other side is computed from the size on this one. Its first fields tell
whether both servers mean the same request. A plugin with another layout needs another version.
"""

import json
from dataclasses import fields
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch

from soft_sglang import __version__
from soft_sglang.options import MAX_TOPK_LIMIT
from soft_sglang.parameters import REQUEST_KEY, SoftThinkingParams
from soft_sglang.policies.policy import MAX_STATE
from soft_sglang.trace import PolicyMemory, Step

_COMPARED = tuple(f.name for f in fields(SoftThinkingParams) if f.name != "seed")
"""Parameters that both servers must have resolved alike; the seed is the prefill server's."""
_ID, _WEIGHT = np.dtype(np.int32), np.dtype(np.float32)
_PAIR = _ID.itemsize + _WEIGHT.itemsize


class HandoffError(ValueError):
    """A request cannot be taken over as it was meant."""


class Handoff(NamedTuple):
    """What a server that decodes takes over."""

    seed: int
    """Of the request's noise."""
    step: Step | None
    """None: the request's first step left nothing for the host."""


class HandoffRows:
    """The rows of one server, at a fixed address on the host."""

    def __init__(self, rows: int, hidden_size: int, dtype: torch.dtype) -> None:
        """``hidden_size`` and ``dtype``: of the model's last hidden states."""
        self._dtype = dtype
        payload = max(MAX_TOPK_LIMIT * _PAIR, hidden_size * dtype.itemsize + _PAIR)
        self._rows = np.zeros(
            rows,
            np.dtype(
                [
                    ("plugin", "S24"),
                    ("room", np.uint64),
                    ("soft", np.bool_),
                    ("parameters", np.uint32, len(_COMPARED)),
                    ("seed", np.int64),
                    ("stepped", np.bool_),
                    ("entropy", np.float64),
                    ("proposal", np.int64),
                    ("end_allowed", np.bool_),
                    ("remembers", np.bool_),
                    ("state", np.float64, MAX_STATE),
                    ("pairs", np.int64),
                    ("hidden", np.int64),
                    ("payload", np.uint8, payload),
                ],
                align=True,
            ),
        )

    def buffer(self) -> tuple[int, int, int]:
        """Address, size, and size of a row, in bytes."""
        return self._rows.ctypes.data, self._rows.nbytes, self._rows.itemsize

    def write(
        self, index: int, room: int, params: SoftThinkingParams | None, step: Step | None
    ) -> None:
        """Fill a row.

        Args:
            index: of the row.
            room: what the two servers call the request.
            params: of the request; None: it is no soft one.
            step: that its prefill ended with, if that is the host's business.
        """
        row = self._rows[index]
        row["plugin"], row["room"], row["soft"] = _plugin(), room, params is not None
        if params is None:
            return
        row["parameters"], row["seed"] = _checksums(params), params.seed
        row["stepped"] = step is not None
        if step is not None:
            self._write_step(row, step)

    def _write_step(self, row: Any, step: Step) -> None:
        row["entropy"], row["proposal"] = step.entropy, step.proposal
        row["end_allowed"], row["remembers"] = step.end_allowed, step.memory is not None
        hidden = None
        if step.memory is not None:
            row["state"], hidden = step.memory.state, step.memory.hidden
        # what is fed instead of a mixture takes its place
        used = 1 if hidden is not None else 1 + int(np.count_nonzero(step.weights[1:]))
        parts = [
            step.ids[:used].astype(_ID).tobytes(),
            step.weights[:used].astype(_WEIGHT).tobytes(),
        ]
        row["pairs"], row["hidden"] = used, 0
        if hidden is not None:
            parts.append(hidden.to(self._dtype).contiguous().view(torch.uint8).numpy().tobytes())
            row["hidden"] = len(parts[-1])
        content = np.frombuffer(b"".join(parts), np.uint8)
        row["payload"][: len(content)] = content

    def read(self, index: int, room: int, params: SoftThinkingParams | None) -> Handoff | None:
        """What the other server wrote into a row; None if the request is no soft one on both.

        Args:
            index: of the row.
            room: what the two servers call the request.
            params: of the request, as this server reads it; None: it is no soft one.

        Raises:
            HandoffError: the row is not of this request, or the other server reads it otherwise.
        """
        row = self._rows[index]
        written = int(row["room"]) == room and bytes(row["plugin"]) != b""
        if not written:
            if params is None:
                return None
            raise HandoffError(
                f"{REQUEST_KEY} needs the plugin on both servers of a pair, and the prefill server "
                "runs without it."
            )
        if bytes(row["plugin"]) != _plugin():
            if params is None and not row["soft"]:
                return None
            raise HandoffError(
                f"{REQUEST_KEY} needs the same plugin on both servers of a pair: the prefill "
                f"server runs soft-sglang {bytes(row['plugin']).decode(errors='replace')}, the "
                f"decode server {__version__}."
            )
        self._compare(row, params)
        if params is None:
            return None
        return Handoff(int(row["seed"]), self._read_step(row) if row["stepped"] else None)

    def _compare(self, row: Any, params: SoftThinkingParams | None) -> None:
        """Raise HandoffError unless both servers read a request alike."""
        if bool(row["soft"]) != (params is not None):
            kinds = ("a soft one", "an ordinary one")
            theirs, ours = kinds if row["soft"] else kinds[::-1]
            raise HandoffError(
                f"the prefill server took the request for {theirs}, the decode server for {ours}; "
                "start both with the same options, --enable-soft-thinking among them."
            )
        if params is None:
            return
        other = np.flatnonzero(row["parameters"] != _checksums(params))
        if len(other):
            raise HandoffError(
                f"{REQUEST_KEY}.{_COMPARED[other[0]]} is not the same on the prefill server and "
                "the decode server; start both with the same model and the same options."
            )

    def _read_step(self, row: Any) -> Step:
        pairs, hidden_bytes = int(row["pairs"]), int(row["hidden"])
        content = row["payload"].tobytes()
        ids = np.frombuffer(content, _ID, pairs).astype(np.int64)
        weights = np.frombuffer(content, _WEIGHT, pairs, pairs * _ID.itemsize).copy()
        memory = None
        if row["remembers"]:
            hidden = None
            if hidden_bytes:
                raw = bytearray(content[pairs * _PAIR :][:hidden_bytes])
                hidden = torch.frombuffer(raw, dtype=self._dtype)
            memory = PolicyMemory(row["state"].tolist(), hidden)
        return Step(
            ids,
            weights,
            float(row["entropy"]),
            int(row["proposal"]),
            bool(row["end_allowed"]),
            memory,
        )


def _plugin() -> bytes:
    return __version__.encode()[:24]


def _checksums(params: SoftThinkingParams) -> list[int]:
    """Of the parameters that are compared, in order."""
    return [crc32(json.dumps(getattr(params, name)).encode()) for name in _COMPARED]
