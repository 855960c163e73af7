"""PD disaggregation: rows for soft thinking beside SGLang's metadata of a request.

SGLang transfers the metadata when a request's prompt is transferred, in as many buffers as both
servers of a pair have.
"""

from typing import Any

from soft_sglang.handoff import HandoffRows
from soft_sglang.patches.record import When, patch

_ROWS = "soft_thinking"
"""Attribute of SGLang's metadata buffers that holds the rows."""


def handoff_rows(metadata_buffers: Any) -> HandoffRows:
    """The rows beside SGLang's metadata buffers."""
    rows: HandoffRows = getattr(metadata_buffers, _ROWS)
    return rows


def _add_rows(queue: Any) -> None:
    """Allocate the rows before the buffers' addresses are collected."""
    buffers, config = queue.metadata_buffers, queue.scheduler.model_config
    rows = HandoffRows(buffers.output_ids.shape[0], config.hidden_size, config.dtype)
    setattr(buffers, _ROWS, rows)


_WHY = "The first step of a thought happens on the prefill server, the next ones on another."
_HOW = "Allocates a row for each of the requests that SGLang has metadata for."
_UPSTREAM = "Metadata of a plugin's own would replace it."

add_rows_of_prefill = patch(
    "disaggregation.prefill.PrefillBootstrapQueue._init_kv_manager",
    When.BEFORE,
    why=_WHY,
    how=_HOW,
    upstream=_UPSTREAM,
)(_add_rows)

add_rows_of_decode = patch(
    "disaggregation.decode.DecodePreallocQueue._init_kv_manager",
    When.BEFORE,
    why=_WHY,
    how=_HOW,
    upstream=_UPSTREAM,
)(_add_rows)


@patch(
    "disaggregation.utils.MetadataBuffers.get_buf_infos",
    When.AFTER,
    why=_WHY,
    how="Adds the rows as the last buffer: a server without it transfers the others all the same.",
    upstream=_UPSTREAM,
)
def transfer_rows(infos: tuple[list[int], list[int], list[int]], self: Any) -> Any:
    """Add the rows to the buffers that are transferred."""
    for column, value in zip(infos, handoff_rows(self).buffer(), strict=True):
        column.append(value)
    return infos
