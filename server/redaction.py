"""Keeps API keys out of the log."""

import logging
from collections.abc import Sequence

HIDDEN = "***"


def hide_in_logs(secrets: Sequence[str | None]) -> None:
    """Replace secrets in every log record of this process from now on.

    SGLang logs all of its arguments at the start, API keys included.

    Args:
        secrets: strings to hide; None and empty ones are ignored.
    """
    hidden = [secret for secret in secrets if secret]
    if not hidden:
        return
    make = logging.getLogRecordFactory()

    def make_redacted(*args: object, **kwargs: object) -> logging.LogRecord:
        record = make(*args, **kwargs)
        message = record.getMessage()
        if any(secret in message for secret in hidden):
            for secret in hidden:
                message = message.replace(secret, HIDDEN)
            record.msg, record.args = message, ()
        return record

    logging.setLogRecordFactory(make_redacted)
