"""Work spread over processes of which any may crash or hang: that costs one job, and no other.

A task is a generator that yields jobs and is sent the answer to each; tasks run side by side, one
in each process, the jobs of a task one after the other.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any

READY = "ready"
TOO_LONG = "took more than"  # begins the reason of a job that was given up
START = 300.0  # s, in which a process has to import what it needs, however busy the machine
ATTEMPTS = 2  # of a job whose process died; the second one in a fresh process
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Lost:
    """The answer to a job that no process survived: why, in a phrase."""

    reason: str


@dataclass
class _Worker:
    """A process, and what it is busy with."""

    work: Callable
    common: Any
    task: Generator
    job: Any
    attempts: int = 0
    ready: bool = False
    since: float = 0.0  # s, when the job was given
    process: Any = None
    pipe: Any = field(default=None, repr=False)

    def give(self, job) -> None:
        """Hand over a job, to a new process where there is none."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.pipe, theirs = context.Pipe()
            arguments = (theirs, self.work, self.common)
            self.process = context.Process(target=_serve, args=arguments, daemon=True)
            with _one_thread():
                self.process.start()
            theirs.close()
            self.ready = False
        self.job, self.since = job, time.monotonic()
        with suppress(BrokenPipeError):  # it has crashed since, which `_answer` sees
            self.pipe.send(job)

    def end(self) -> int | None:
        """Kill the process; how it had ended, if it had."""
        if self.process is None:
            return None
        self.process.join(0.2)  # s, in which one that has crashed says so
        ended = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.process = None
        return ended


def run(
    tasks: Iterator[Generator],
    work: Callable[[Any, Any], Any],
    common: Any,
    processes: int,
    patience: float,
) -> None:
    """Drive all tasks: each job is answered with `work(job, common)`, done in another process.

    A job whose process crashes, or takes more than `patience` seconds, is tried once more in a
    fresh process; then its answer is `Lost`. What `work` raises is raised here, and so is
    RuntimeError where processes do not even start. No process outlives this call, or its caller.
    """
    workers: list[_Worker] = []
    try:
        for task in tasks:
            job = next(task, None)
            if job is None:
                continue
            workers.append(_Worker(work, common, task, job))
            workers[-1].give(job)
            while len(workers) >= processes:
                workers = _attend(workers, tasks, patience)
        while workers:
            workers = _attend(workers, tasks, patience)
    finally:
        for worker in workers:
            worker.end()


def _attend(workers: list[_Worker], tasks: Iterator[Generator], patience: float) -> list[_Worker]:
    """Wait for answers, and pass them on; the workers that are still busy."""
    ready = connection.wait([worker.pipe for worker in workers], timeout=0.2)
    for worker in list(workers):
        if worker.pipe in ready:
            answer = _answer(worker)
        elif time.monotonic() - worker.since > (patience if worker.ready else START):
            worker.end()
            _refuse_unready(worker)
            answer = _again(worker, f"{TOO_LONG} {patience:g} s")
        else:
            continue
        if answer is not None and not _go_on(worker, answer[0], tasks):
            worker.end()
            workers.remove(worker)
    return workers


def _answer(worker: _Worker) -> tuple | None:
    """The answer to a worker's job in a tuple of one; None while there is none yet."""
    try:
        message = worker.pipe.recv()
    except (EOFError, OSError):
        ended = worker.end()
        _refuse_unready(worker)
        return _again(worker, f"crashed the process that decodes ({_ending(ended)})")
    if message == READY:
        worker.ready, worker.since = True, time.monotonic()
        return None
    answer, error = message
    if error is not None:
        raise error
    return (answer,)


def _refuse_unready(worker: _Worker) -> None:
    if not worker.ready:
        raise RuntimeError(
            "worker processes do not start; in a script of your own, guard the call by "
            "`if __name__ == '__main__':`."
        )


def _again(worker: _Worker, reason: str) -> tuple | None:
    """Try a job once more; after that it is lost."""
    worker.attempts += 1
    if worker.attempts < ATTEMPTS:
        worker.give(worker.job)
        return None
    return (Lost(f"{reason}, {worker.attempts} times"),)


def _go_on(worker: _Worker, answer, tasks: Iterator[Generator]) -> bool:
    """Send an answer to its task, and give the next job of it or of the next task, if any."""
    worker.attempts = 0
    try:
        worker.give(worker.task.send(answer))
        return True
    except StopIteration:
        pass
    for task in tasks:
        job = next(task, None)
        if job is not None:
            worker.task = task
            worker.give(job)
            return True
    return False


def _ending(code: int | None) -> str:
    if code is None:
        return "it stopped answering"
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes begun in this block compute in one thread each, for there are many of them."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# ---- in the other process ----


def _serve(pipe, work: Callable, common) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller sees to an interruption
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    pipe.send(READY)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            answer = work(job, common), None
        except Exception as error:
            answer = None, error
        pipe.send(answer)


def _end_with_the_caller() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
