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
    """Compare two alternating calls after a warm-up each; a `ratio` above 1 means ours is faster.

    JAX returns a result before it is computed, so the warm-ups are waited for, too. A call that
    runs elsewhere can return its own seconds as `Took`.
    """
    seconds(ours), seconds(other)
    times = np.array([[seconds(ours), seconds(other)] for _ in repeat(None, rounds)])
    return row(times[:, 0], times[:, 1], what)


def seconds(call: Callable) -> float:
    """Seconds of a call until its result is computed."""
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return result.seconds if isinstance(result, Took) else time.perf_counter() - start


def row(ours, others, what: str) -> dict:
    """A row of the table, from the seconds of both sides in the same rounds."""
    ratios = np.divide(others, ours)
    return {
        "seconds": float(np.median(ours)),
        "alternative": what,
        "alternative_seconds": float(np.median(others)),
        "ratio": float(np.median(ratios)),
        "spread": [float(ratios.min()), float(ratios.max())],
    }


class Took:
    """The seconds that a call took in another process."""

    def __init__(self, seconds: float):
        self.seconds = seconds


def environment() -> dict[str, str]:
    """The environment of this process, with this repository in PYTHONPATH."""
    root, before = Path(__file__).resolve().parents[1], os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), before]))}


class Program:
    """A program that repeats its work for every line of input and prints the seconds it took.

    First it prints "ready", perhaps with `facts` in JSON. A call runs the work once. Raises
    ValueError with the last line of its stderr if it does not start, or ends early.
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
        with contextlib.suppress(BrokenPipeError):  # the program has ended
            self.process.stdin.write("again\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise self._ended()
        return Took(float(line))

    def peak_bytes(self) -> int | None:
        """The peak memory of the program; None if the system does not report it."""
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
