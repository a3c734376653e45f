"""Fill batch rows in worker processes, through shared memory.

Nothing large goes through a pipe: at full size a clip has 11 MB. Neither JAX nor Grain is imported
over there.

R rows of a batch
"""

import ast
import math
import multiprocessing
import os
import queue
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
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController, threadpool_limits

SHARED = Path("/dev/shm")  # where Linux keeps shared memory
Work = Callable[[Any, dict[str, np.ndarray]], Any]
Fields = dict[str, tuple[tuple[int, ...], str]]  # name: shape of the whole batch, type


class Workers:
    """`count` processes that fill the rows of batches; up to `slots` batches at a time.

    For each job, `work(job, arrays)` is to write into its own rows of the arrays, and what it
    returns comes back. ValueError where the shared memory would not fit; OSError where a process
    dies.
    """

    def __init__(self, work: Work, fields: Fields, count: int, slots: int):
        self.fields, length = fields, size(fields)
        _refuse_large(length * slots, count)
        context = multiprocessing.get_context("spawn")
        closing = context.Event()
        self.pool = ProcessPoolExecutor(count, context, _begin, (work, fields, closing))
        self.free: queue.Queue[SharedMemory] = queue.Queue()
        for _ in range(slots):
            self.free.put(SharedMemory(create=True, size=length))
        self.close = weakref.finalize(self, _close, self.pool, self.free, slots, closing)

    def fill(self, jobs: Sequence) -> tuple[dict[str, np.ndarray], list]:
        """A batch, and the answers to its jobs in their order. May be called from many threads."""
        slot = self.free.get()
        futures: list[Future] = []
        try:
            for job in jobs:
                futures.append(self.pool.submit(_do, slot.name, job))
            answers = [future.result() for future in futures]
            arrays = {name: array.copy() for name, array in _arrays(slot, self.fields).items()}
            return arrays, answers
        except BrokenProcessPool:
            raise OSError(
                "a process that reads the data died, perhaps for want of memory or over a damaged "
                "file: workers=0 reads in this process and shows where. In a script of your own, "
                "guard the start by `if __name__ == '__main__':`."
            ) from None
        finally:
            # Nobody may write into the slot any more when it is given out again. What is cancelled
            # is not waited for: a pool that is shut down never reports it.
            wait([future for future in futures if not future.cancel()])
            self.free.put(slot)


def why_no_workers() -> str | None:
    """Why this program cannot begin processes, None if it can.

    Each begins with a run of the program's main file, as far as `if __name__ == "__main__":`; a
    script without that line would begin itself again, and one from stdin cannot be found.
    """
    main = sys.modules.get("__main__")
    module = getattr(getattr(main, "__spec__", None), "name", "")
    file = getattr(main, "__file__", None)
    if file is None or module.rpartition(".")[2] == "__main__":  # a notebook, python -c, a package
        return None
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError):  # stdin, or a program that is no source
        return None if Path(file).exists() else f"{file} is no file that they could begin with"
    guarded = any(
        isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) for node in tree.body
    )
    return None if guarded else f'{file} has no `if __name__ == "__main__":`'


@lru_cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread():
    """A block in which matrices are multiplied in one thread, as in the workers.

    The order of additions depends on the number of threads, and with it the last bit of a sum.
    """
    return _libraries().limit(limits=1, user_api="blas")


def blank(fields: Fields) -> dict[str, np.ndarray]:
    """A batch of zeros."""
    return {name: np.zeros(shape, kind) for name, (shape, kind) in fields.items()}


def size(fields: Fields) -> int:
    """Bytes of a batch."""
    return sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in fields.values())


def _arrays(slot: SharedMemory, fields: Fields) -> dict[str, np.ndarray]:
    """The arrays of a batch in shared memory, one after the other."""
    arrays, at = {}, 0
    for name, (shape, kind) in fields.items():
        arrays[name] = np.ndarray(shape, kind, slot.buf, at)
        at += arrays[name].nbytes
    return arrays


def _refuse_large(size: int, count: int) -> None:
    room = shutil.disk_usage(SHARED).free if SHARED.exists() else size
    if size > room:
        raise ValueError(
            f"{count} workers share {size / 2**20:.0f} MiB, and {SHARED} has {room / 2**20:.0f} "
            "MiB left; take a smaller batch, more shared memory (docker run --shm-size) or "
            "workers=0."
        )


def _close(pool: ProcessPoolExecutor, free: queue.Queue, slots: int, closing: Event) -> None:
    closing.set()  # the pool has handed out more jobs than are under way, and takes none back
    pool.shutdown(cancel_futures=True)
    for _ in range(slots):
        slot = free.get()  # a batch that was under way gives its slot back
        slot.close()
        slot.unlink()


# ---- in the other processes ----

_work: Work
_fields: Fields
_closing: Event
_slots: dict[str, SharedMemory] = {}


def _begin(work: Work, fields: Fields, closing: Event) -> None:
    global _work, _fields, _closing
    _work, _fields, _closing = work, fields, closing
    threadpool_limits(1)  # there are many processes, and their matrices are small
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process sees to an interruption
    threading.Thread(target=_end_with_the_caller, daemon=True).start()


def _end_with_the_caller() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _do(name: str, job) -> Any:
    if _closing.is_set():
        return None
    if name not in _slots:
        _slots[name] = SharedMemory(name)
    return _work(job, _arrays(_slots[name], _fields))
