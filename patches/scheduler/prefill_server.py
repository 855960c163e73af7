"""The prefill server of a pair: hands the first step of a request on."""

from collections.abc import Callable, Iterator
from typing import Any

from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.handoff import handoff_rows
from soft_sglang.patches.scheduler.request import reporter_of, trace_of
from soft_sglang.patches.scheduler.step_output import HostOutput


@patch(
    "disaggregation.prefill.SchedulerDisaggregationPrefillMixin.process_batch_result_disagg_prefill",
    When.BEFORE,
    why="SGLang sends a request on before it hands the step's results to whom they are for.",
    how="Notes each soft request's step first.",
    upstream="Not applicable.",
)
def note_steps(_scheduler: Any, batch: Any, result: Any) -> None:
    """Note the steps of a prefill batch."""
    if result.auxiliary_host_output is None:
        return
    if result.copy_done is not None:
        result.copy_done.synchronize()
    for output in _soft_outputs(result.auxiliary_host_output):
        for position, step in output.steps():
            trace = trace_of(batch.reqs[position])
            if trace is not None and trace.is_recording:
                trace.first_step = step


def _soft_outputs(output: Any) -> Iterator[HostOutput]:
    """Those of the plugin among a batch's auxiliary outputs."""
    for one in getattr(output, "outputs", (output,)):
        if isinstance(one, HostOutput):
            yield one


@patch(
    "disaggregation.utils.MetadataBuffers.set_buf",
    When.AFTER,
    why="The decode server goes on from the first step, and must read the request alike.",
    how="Fills the request's row.",
    upstream="As for the rows.",
)
def hand_on(_result: None, self: Any, req: Any) -> None:
    """Fill the row of a request."""
    reporter, trace = reporter_of(req), trace_of(req)
    handoff_rows(self).write(
        req.metadata_buffer_index,
        req.bootstrap_room or 0,
        None if reporter is None else reporter.params,
        None if trace is None else trace.first_step,
    )


@patch(
    "disaggregation.prefill.SchedulerDisaggregationPrefillMixin.send_kv_chunk",
    When.AROUND,
    why="A decode server without the plugin would quietly decode an ordinary request.",
    how="Fails the transfer of a soft request to a server that has no rows for it.",
    upstream="Not applicable.",
)
def refuse_without_rows(
    original: Callable[..., None], self: Any, req: Any, last_chunk: bool = False, **kwargs: Any
) -> None:
    """Send a chunk of a request, the last one only to a server that has the plugin."""
    if last_chunk and reporter_of(req) is not None and _lacks_rows(self, req.bootstrap_room):
        self.disagg_prefill_bootstrap_queue.kv_manager.conclude_failure(
            bootstrap_room=req.bootstrap_room,
            failure_reason=(
                f"{REQUEST_KEY} needs the plugin on both servers of a pair, and the decode server "
                "runs without it"
            ),
        )
        return
    original(self, req, last_chunk=last_chunk, **kwargs)


def _lacks_rows(scheduler: Any, room: int | None) -> bool:
    """Whether a server that a request goes to registered fewer buffers than this one has."""
    manager = scheduler.disagg_prefill_bootstrap_queue.kv_manager
    own = len(manager.kv_args.aux_data_ptrs)
    infos = getattr(manager, "transfer_infos", {})  # a fake transfer has none
    peers = [manager.decode_kv_args_table.get(key) for key in infos.get(room, ())]
    return any(_buffers(peer) < own for peer in peers if peer is not None)


def _buffers(peer: Any) -> int:
    """How many metadata buffers a decode server registered; Mori has a name of its own for them."""
    mori = getattr(peer, "dst_aux_mem_descs", None)
    return len(peer.dst_aux_ptrs if mori is None else mori)
