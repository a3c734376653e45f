"""Time two calls in turns, in this process or in others."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import jax
import numpy as np


def compare(ours: Callable, other: Callable, what: str, rounds: int) -> dict:
    """Medians of two calls that alternate, after one warm-up each; `ratio` above 1: ours faster.

    JAX gives a result back before it is computed, so the warm-up, too, is waited for. A call may
    give back the seconds it took itself, as those do that run elsewhere.
    """
    seconds(ours), seconds(other)
    times = np.array([[seconds(ours), seconds(other)] for _ in repeat(None, rounds)])
    return row(times[:, 0], times[:, 1], what)


def seconds(call: Callable) -> float:
    """How long a call takes, until its result is there."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return result.seconds if isinstance(result, Took) else time.perf_counter() - start


def row(ours, others, what: str) -> dict:
    """Seconds of the same rounds on both sides as a row of the table."""
    ratios = np.divide(others, ours)
    return {
        "seconds": float(np.median(ours)),
        "alternative": what,
        "alternative_seconds": float(np.median(others)),
        "ratio": float(np.median(ratios)),
        "spread": [float(ratios.min()), float(ratios.max())],
    }


class Took:
    """The seconds that a call took elsewhere."""

    def __init__(self, seconds: float):
        self.seconds = seconds


def environment() -> dict[str, str]:
    """The variables of this process, and where another Python finds this package."""
    root, known = Path(__file__).resolve().parents[1], os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), known]))}


class Program:
    """A program that does its work again for every line it is given, and says how long that took.

    First it prints "ready" and perhaps `facts` in JSON. A call does the work once. ValueError with
    its last words where it does not begin, or ends early.
    """

    def __init__(self, *command: str):
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        try:
            self.process = subprocess.Popen(command, **pipes, text=True, env=environment())
        except OSError:
            raise ValueError(f"{command[0]} is no Python that can be run") from None
        word, _, facts = self.process.stdout.readline().partition(" ")
        if word.strip() != "ready":
            raise self._ended()
        self.facts = json.loads(facts or "{}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._close()

    def __call__(self) -> Took:
        with contextlib.suppress(BrokenPipeError):  # it has ended, and says nothing more
            self.process.stdin.write("again\n")
            self.process.stdin.flush()
        said = self.process.stdout.readline()
        if not said:
            raise self._ended()
        return Took(float(said))

    def peak_bytes(self) -> int | None:
        """The most memory that it had until now; None where the system does not say."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:
            return None
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    def _ended(self) -> ValueError:
        lines = self.process.stderr.read().strip().splitlines()
        code = self.process.wait()
        self._close()
        if code == -9:
            lines = ["it was killed, as happens where memory runs out"]
        return ValueError(lines[-1] if lines else f"it ended with code {code}")

    def _close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            stream.close()
