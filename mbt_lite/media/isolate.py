"""Decode in separate processes: a file that crashes or hangs one costs its own job and no other.

The processes are a `pebble.ProcessPool` with limits of ours. `run` spreads tasks over such a pool:
a task is a generator that yields jobs and is sent the answer to each; the jobs of one task run one
after another, those of different tasks side by side.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

from pebble import ProcessExpired, ProcessPool

from mbt_lite.media.container import MediaError

try:
    import resource
except ImportError:  # not a POSIX system: time is bounded there, memory is not
    resource = None

ATTEMPTS = 2  # of a job whose process crashed or ran out of time; the second in a fresh process
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
STOP_SECONDS = 10.0  # that the end of a pool is waited for
NO_START = "processes that decode do not start, or are killed; is there enough memory?"

_start_lock = threading.Lock()  # starting a process changes, for a moment, what all threads see


class DecodeTimeout(MediaError):
    """Decoding took longer than it may."""

    PHRASE = "took more than"  # in the reason that a manifest records


class DecodeCrash(MediaError):
    """The process that decodes has crashed."""


# ---- the pool ----


def start_pool(
    work: Callable, processes: int, memory: int | None = None, max_tasks: int = 0
) -> ProcessPool:
    """Start the processes of a pool, which import the module of `work` at once.

    Each may hold `memory` bytes (Linux only) and is replaced after `max_tasks` jobs. None outlives
    `stop_pool`, or the process that started it.
    """
    pool = ProcessPool(processes, max_tasks, _initialize, (memory, work), _Context())
    assert pool.active  # asking starts it
    return pool


def stop_pool(pool: ProcessPool) -> None:
    """Kill the processes of a pool; unfinished jobs get no result.

    The pool's threads are not waited for without end: this also runs at the end of the program and
    in the garbage collector, where one of them may need what the waiting thread holds.
    """
    pool.stop()
    joining = threading.Thread(target=pool.join, daemon=True)
    joining.start()
    joining.join(STOP_SECONDS)


def failure(error: BaseException | None, timeout: float) -> MediaError | None:
    """`DecodeCrash` or `DecodeTimeout` for an exception of the pool itself; None for any other."""
    if isinstance(error, ProcessExpired):
        code = error.exitcode
        ending = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return DecodeCrash(f"crashed the process that decodes ({ending})")
    if isinstance(error, TimeoutError):
        return DecodeTimeout(f"{DecodeTimeout.PHRASE} {timeout:g} s")
    return None


def run(
    tasks: Iterator[Generator],
    work: Callable[[Any, Any], Any],
    common: Any,
    processes: int,
    timeout: float,
) -> None:
    """Drive all tasks: each job is answered with `work(job, common)`, done in another process.

    A job whose process crashes, or takes more than `timeout` seconds, is tried once more in a fresh
    process; then the answer is `DecodeCrash` or `DecodeTimeout`. A `MediaError` that `work` raises
    is an answer, too. Its other exceptions end the run, and so does RuntimeError where processes do
    not even start.
    """
    pool = start_pool(work, processes)
    running: dict[Future, tuple[Generator, Any, int]] = {}

    def submit(task: Generator, job, attempt: int = 1) -> None:
        running[pool.schedule(work, (job, common), timeout=timeout)] = task, job, attempt

    def start_next() -> None:
        for task in tasks:
            job = next(task, None)
            if job is not None:
                return submit(task, job)

    try:
        for _ in range(processes):
            start_next()
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task, job, attempt = running.pop(future)
                if failure(future.exception(), timeout) and attempt < ATTEMPTS:
                    submit(task, job, attempt + 1)
                    continue
                try:
                    submit(task, task.send(_answer(future, timeout)))
                except StopIteration:
                    start_next()
    finally:
        stop_pool(pool)


def _answer(future: Future, timeout: float):
    """The result of a job, or the `MediaError` in its place; other exceptions are raised."""
    error = future.exception()
    if reason := failure(error, timeout):
        return type(reason)(f"{reason}, {ATTEMPTS} times")
    if isinstance(error, BrokenProcessPool):
        raise RuntimeError(NO_START) from error
    return error if isinstance(error, MediaError) else future.result()


class _Process(SpawnProcess):
    """A process with one thread for arithmetic that does not run the caller's program again.

    Python would import `__main__` in it, and that may well be a server with a large model.
    """

    def start(self) -> None:
        self.daemon = True
        with _start_lock, _environment(ONE_THREAD), _empty_main():
            super().start()


class _Context(SpawnContext):
    Process = _Process


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _empty_main() -> Iterator[None]:
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


# ---- in the other process ----


def _initialize(memory: int | None, _work: Callable) -> None:
    """Set the limits of this process; unpickling `_work` has imported what it needs."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a decoder that hangs runs no Python handler
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    if resource and memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no copy of the file


def _end_with_the_caller() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
