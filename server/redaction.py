"""Keeps API keys out of the log."""

import logging
from collections.abc import Sequence

HIDDEN = "***"
ARGUMENTS_LOGGER = "sglang.srt.entrypoints.engine"
"""The logger to which SGLang writes all of its arguments at the start."""


class HideSecrets(logging.Filter):
    """Replaces quoted secrets in the messages of a logger."""

    def __init__(self, secrets: Sequence[str | None]) -> None:
        """``secrets``: None and empty ones are ignored."""
        super().__init__()
        self._quoted = [repr(secret) for secret in secrets if secret]

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; keep it."""
        if isinstance(record.msg, str) and not record.args:
            for quoted in self._quoted:
                record.msg = record.msg.replace(quoted, repr(HIDDEN))
        return True


def hide_in_arguments(secrets: Sequence[str | None]) -> None:
    """Hide secrets where SGLang logs its arguments."""
    logging.getLogger(ARGUMENTS_LOGGER).addFilter(HideSecrets(secrets))
