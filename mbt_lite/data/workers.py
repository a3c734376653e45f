"""Fill batches in worker processes, through shared memory.

A clip of full size has 11 MB, too much to send through a pipe. The processes import neither JAX nor
Grain, so that they start in a second and take little memory; docs/design.md has the measurement.
"""

import math
import multiprocessing
import os
import queue
import re
import shutil
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import connection
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_limits

SHARED = Path("/dev/shm")  # where Linux keeps shared memory
Work = Callable[[Any, dict[str, np.ndarray]], Any]
Fields = dict[str, tuple[tuple[int, ...], str]]  # name: shape of the batch's array, data type


class Workers:
    """`count` processes that fill up to `ahead` batches at a time.

    For each task, `work(task, batch)` writes its rows of the batch in one of the processes; its
    result is returned. ValueError if shared memory is too small; OSError if a process dies.
    """

    def __init__(self, work: Work, fields: Fields, count: int, ahead: int):
        self.fields, size = fields, num_bytes(fields)
        _check_shared_memory(size * ahead, count)
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(count, context, _start_worker, (work, fields))
        self.buffers: queue.Queue[SharedMemory] = queue.Queue()  # those that no batch uses now
        for _ in range(ahead):
            self.buffers.put(SharedMemory(create=True, size=size))
        self.close = weakref.finalize(self, _close, self.pool, self.buffers, ahead)

    def fill(self, tasks: Sequence) -> tuple[dict[str, np.ndarray], list]:
        """A batch and the results of its tasks, in their order; may be called from many threads."""
        buffer = self.buffers.get()
        futures: list[Future] = []
        try:
            for task in tasks:
                futures.append(self.pool.submit(_run_task, buffer.name, task))
            results = [future.result() for future in futures]
            batch = {name: array.copy() for name, array in _arrays(buffer, self.fields).items()}
            return batch, results
        except BrokenProcessPool:
            raise OSError(
                "a process that reads the data died, perhaps for lack of memory or because of a "
                "damaged file: workers=0 reads in this process and shows where. In a script of "
                "your own, guard the start by `if __name__ == '__main__':`."
            ) from None
        finally:
            # No process may write into the buffer when it is used again. Canceled tasks are not
            # waited for: a pool that is shut down never reports them.
            wait([future for future in futures if not future.cancel()])
            self.buffers.put(buffer)


def why_no_workers() -> str | None:
    """Why this program cannot start worker processes; None if it can.

    Each process first runs the program's main file up to `if __name__ == "__main__":`. A script
    without that line would start itself again, and a program from stdin has no file.
    """
    main = sys.modules.get("__main__")
    module = getattr(getattr(main, "__spec__", None), "name", "")
    file = getattr(main, "__file__", None)
    if file is None or module.rpartition(".")[2] == "__main__":  # a notebook, python -c, a package
        return None
    if not Path(file).exists():  # stdin
        return f"{file} is not a file that they could run"
    text = Path(file).read_text(encoding="utf-8", errors="ignore")
    guarded = re.search("^if .*__name__", text, re.MULTILINE)
    return None if guarded else f'{file} has no `if __name__ == "__main__":`'


@lru_cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread():
    """A context in which matrices are multiplied in one thread, as in the workers.

    The number of threads decides the order of additions, and so the last bit of a sum.
    """
    return _libraries().limit(limits=1, user_api="blas")


def num_bytes(fields: Fields) -> int:
    """Bytes of a batch."""
    return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in fields.values())


def _arrays(buffer: SharedMemory, fields: Fields) -> dict[str, np.ndarray]:
    """The arrays of a batch in shared memory, one after the other."""
    arrays, offset = {}, 0
    for name, (shape, dtype) in fields.items():
        arrays[name] = np.ndarray(shape, dtype, buffer.buf, offset)
        offset += arrays[name].nbytes
    return arrays


def _check_shared_memory(size: int, count: int) -> None:
    free = shutil.disk_usage(SHARED).free if SHARED.exists() else size
    if size > free:
        raise ValueError(
            f"{count} workers share {size / 2**20:.0f} MiB, and {SHARED} has {free / 2**20:.0f} "
            "MiB left; take a smaller batch, more shared memory (docker run --shm-size) or "
            "workers=0."
        )


def _close(pool: ProcessPoolExecutor, buffers: queue.Queue, count: int) -> None:
    pool.shutdown(cancel_futures=True)
    for _ in range(count):
        buffer = buffers.get()  # a batch in progress returns its buffer
        buffer.close()
        buffer.unlink()


# ---- in the worker processes ----

_work: Work
_fields: Fields
_buffers: dict[str, SharedMemory] = {}


def _start_worker(work: Work, fields: Fields) -> None:
    global _work, _fields
    _work, _fields = work, fields
    threadpool_limits(1)  # there are many processes, and their matrices are small
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run_task(name: str, task) -> Any:
    if name not in _buffers:
        _buffers[name] = SharedMemory(name)
    return _work(task, _arrays(_buffers[name], _fields))
