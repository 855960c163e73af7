"""The progress bar."""

import sys
import threading

from tqdm import tqdm

# its own lock is a semaphore that multiprocessing tracks, and an Engine that shuts down kills the
# tracker: Python would complain when it ends
tqdm.set_lock(threading.RLock())


def answer_bar(total: int, done: int = 0, what: str | None = None) -> "tqdm[None]":
    """A bar on stderr that counts answers; in a log file, a line every now and then."""
    return tqdm(
        total=total,
        initial=done,
        desc=what,
        unit="answer",
        smoothing=0.05,
        mininterval=0.2 if sys.stderr.isatty() else 15,
    )
