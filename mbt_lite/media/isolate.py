"""Run jobs in separate processes: one that crashes or hangs costs its own job and no other.

`Child` is one such process. `run` spreads tasks over several: a task is a generator that yields
jobs and is sent the answer to each; tasks run side by side, one in each process, the jobs of a task
one after the other.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from types import ModuleType
from typing import Any

READY = "ready"
TOO_LONG = "took more than"  # begins the reason of a job that was given up
START = 300.0  # s, in which a process has to import what it needs, however busy the machine
ATTEMPTS = 2  # of a job whose process died; the second one in a fresh process
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_starting = threading.Lock()  # for a start changes, for a moment, what all threads see


@dataclass(frozen=True)
class Lost:
    """The answer to a job that no process survived: why, in a phrase."""

    reason: str


class Child:
    """A process that does `work(job, common)` for one job after another; a new one after a loss."""

    def __init__(self, work: Callable[[Any, Any], Any], common: Any):
        self.work, self.common = work, common
        self.process = self.pipe = None
        self.ready = self.busy = False
        self.since = 0.0  # s, when the job was given

    def start(self) -> None:
        """Begin the process, if there is none that lives; it goes on importing by itself."""
        if self.process and self.process.is_alive():
            return
        self.end()
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, self.work, self.common)
        self.process = context.Process(target=_serve, args=arguments, daemon=True)
        with _starting, _one_thread(), _by_itself():
            self.process.start()
        theirs.close()
        self.ready = False

    def give(self, job) -> None:
        """Hand over a job."""
        self.start()
        self.busy, self.since = True, time.monotonic()
        with suppress(BrokenPipeError):  # it has crashed since, which `hear` sees
            self.pipe.send(job)

    def hear(self, patience: float) -> tuple | None:
        """The answer in a tuple of one, `Lost` where none will come; None: not yet.

        What `work` raised is raised here, and RuntimeError where the process does not even start.
        """
        if self.pipe.poll():
            return self._receive()
        if time.monotonic() - self.since > (patience if self.ready else START):
            return self._lost(f"{TOO_LONG} {patience:g} s")
        return None

    def ask(self, job, patience: float):
        """The answer to a job, waited for; `Lost` and errors as in `hear`."""
        self.give(job)
        answer = None
        try:
            while answer is None:
                connection.wait([self.pipe], timeout=0.2)
                answer = self.hear(patience)
        finally:
            if self.busy:  # interrupted: its answer must not be taken for that to the next job
                self.end()
        return answer[0]

    def end(self) -> int | None:
        """Kill the process; how it had ended, if it had."""
        if self.process is None:
            return None
        self.process.join(0.2 if self.busy else 0)  # s, in which one that has crashed says so
        ended = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()
        self.process, self.busy = None, False
        return ended

    def _receive(self) -> tuple | None:
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            return self._lost(None)
        if message == READY:
            self.ready, self.since = True, time.monotonic()
            return None
        self.busy = False
        answer, error = message
        if error is not None:
            raise error
        return (answer,)

    def _lost(self, reason: str | None) -> tuple[Lost]:
        """Give the process up; without a reason, it has crashed."""
        ended = self.end()
        if not self.ready:
            raise RuntimeError(
                f"worker processes do not start ({_ending(ended)}); is there enough memory?"
            )
        return (Lost(reason or f"crashed the process that decodes ({_ending(ended)})"),)


@dataclass
class _Worker:
    """A process, and the task that it is busy with."""

    child: Child
    task: Generator
    job: Any
    attempts: int = 0

    def give(self, job) -> None:
        self.job = job
        self.child.give(job)


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
            workers.append(_Worker(Child(work, common), task, job))
            workers[-1].give(job)
            while len(workers) >= processes:
                workers = _attend(workers, tasks, patience)
        while workers:
            workers = _attend(workers, tasks, patience)
    finally:
        for worker in workers:
            worker.child.end()


def _attend(workers: list[_Worker], tasks: Iterator[Generator], patience: float) -> list[_Worker]:
    """Wait for answers, and pass them on; the workers that are still busy."""
    connection.wait([worker.child.pipe for worker in workers], timeout=0.2)
    for worker in list(workers):
        answer = worker.child.hear(patience)
        if answer and worker.child.process is None:  # not what `work` says, the process is gone
            answer = _again(worker, answer[0])
        if answer is not None and not _go_on(worker, answer[0], tasks):
            worker.child.end()
            workers.remove(worker)
    return workers


def _again(worker: _Worker, lost: Lost) -> tuple | None:
    """Try a job once more; after that it is lost."""
    worker.attempts += 1
    if worker.attempts < ATTEMPTS:
        worker.give(worker.job)
        return None
    return (Lost(f"{lost.reason}, {worker.attempts} times"),)


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


@contextmanager
def _by_itself() -> Iterator[None]:
    """Processes begun in this block do not run the program that begins them a second time.

    Python would import it in each of them, and a program may well be a server with a large model.
    """
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


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
