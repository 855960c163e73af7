"""Grades many answers at once, each with a deadline.

Symbolic algebra can take for ever inside one C call, where no signal and no thread ends it. So
answers are graded in processes, and a process that misses its deadline is killed.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue

from soft_sglang.eval.grading import Verdict, grade

DEADLINE = 20.0
"""Seconds for one answer; most take a hundredth of one."""
_STARTS_WITHIN = 300.0
"""Seconds until a process has imported what it needs."""
_NOTHING = Verdict(correct=False, extracted=None)


class GradingWorkers:
    """Processes that grade; close them when done."""

    def __init__(self, count: int, deadline: float = DEADLINE) -> None:
        """Start nothing yet: a process starts with its first answer.

        Args:
            count: of processes.
            deadline: seconds for one answer.
        """
        self._workers = [_Worker(deadline) for _ in range(count)]
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def grade(self, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[int, Verdict]]:
        """Grade pairs of answer and truth; yields numbers and verdicts as they are done.

        An answer that misses the deadline is wrong, and nothing is extracted.
        """
        with ThreadPoolExecutor(len(self._workers)) as threads:
            jobs = {threads.submit(self._grade, *pair): i for i, pair in enumerate(pairs)}
            try:
                for job in as_completed(jobs):
                    yield jobs[job], job.result()
            finally:
                threads.shutdown(cancel_futures=True)

    def _grade(self, answer: str, truth: str) -> Verdict:
        worker = self._idle.get()
        try:
            return worker.grade(answer, truth)
        finally:
            self._idle.put(worker)

    def close(self) -> None:
        """End the processes."""
        for worker in self._workers:
            worker.kill()

    def __enter__(self) -> "GradingWorkers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    """One process, started when needed and again after a missed deadline.

    A pipe with a JSON line each way; ``multiprocessing`` would lean on its resource tracker, which
    an Engine that shut down in this process has killed.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._process: subprocess.Popen[bytes] | None = None

    def grade(self, answer: str, truth: str) -> Verdict:
        """Grade one answer."""
        if self._process is None:
            self._process = self._started()
        reply = self._exchange(self._process, [answer, truth])
        if reply is None:
            self.kill()
            return _NOTHING
        return Verdict(*json.loads(reply))

    def _started(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], _STARTS_WITHIN)[0]:
            process.kill()
        if not process.stdout.readline():
            raise RuntimeError("a grading process did not start")
        return process

    def _exchange(self, process: "subprocess.Popen[bytes]", request: list[str]) -> bytes | None:
        """The reply; None if it is late or the process died, of memory most likely."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            return None
        if not select.select([process.stdout], [], [], self._deadline)[0]:
            return None
        return process.stdout.readline() or None

    def kill(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _work() -> None:
    """Grade what comes until the other side is gone."""
    grade(r"\boxed{\frac{1}{2}}", "0.5")  # imports what is slow to import
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            verdict = grade(*json.loads(line))
        except Exception:  # SymPy may raise anything
            verdict = _NOTHING
        print(json.dumps([verdict.correct, verdict.extracted]), flush=True)


if __name__ == "__main__":
    _work()
