"""Sessions: a request may go on from an earlier one, whose prompt and output become its prompt.

Key-value pairs that were computed from concepts are in no prefix cache, so that they are computed
again, from the ids that were emitted. A streaming session keeps them itself.
"""

from typing import Any

from soft_sglang.parameters import REQUEST_KEY
from soft_sglang.patches.record import When, patch
from soft_sglang.patches.scheduler.request import trace_of


@patch(
    "session.session_controller.Session.create_req",
    When.AFTER,
    why="The next request of a streaming session would find key-value pairs of concepts.",
    how="Ends a soft request in such a session with an error; only the scheduler knows its kind.",
    upstream="Not applicable.",
)
def refuse_streaming_session(req: Any, self: Any, *_args: Any, **_kwargs: Any) -> None:
    """Refuse a soft request in a streaming session."""
    if self.streaming and req.to_finish is None and trace_of(req) is not None:
        req.set_finish_with_abort(
            f"{REQUEST_KEY} cannot be combined with a streaming session; open the session without "
            f"streaming, or set {REQUEST_KEY} to false."
        )
