"""Report the progress of long work: one callback, drawn in a terminal, on a page, or nowhere.

A `Progress` is called with the share that is done and the current step: progress(0.5,
desc="video only"). `gradio.Progress` is one. A share of 0 means preparation, such as reading and
compiling: the time left is estimated only from what follows it.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

Progress = Callable[..., object]
DELAY = 2.0  # s before a bar appears: shorter work shows none
FORM = "{desc}: {percentage:3.0f}%|{bar:24}| {elapsed}{postfix}"


def silent(share: float, desc: str = "") -> None:
    """A `Progress` that shows nothing."""


def compiling(progress: Progress, function, *arguments) -> None:
    """Compile a jitted function for these arguments and report that as a step of its own.

    With `silent` progress the function is compiled by its first call instead.
    """
    if progress is not silent:
        progress(0, desc="compiling")
        function.lower(*arguments).compile()


def part(progress: Progress, begin: float, end: float) -> Progress:
    """A `Progress` of a subtask that takes the share from `begin` to `end` of the whole task."""
    if progress is silent:
        return silent
    return lambda share, desc="": progress(begin + share * (end - begin), desc=desc)


def estimated(progress: Progress) -> Progress:
    """A `Progress` that adds the estimated time left to each description."""
    if progress is silent:
        return silent
    clock = _Clock()

    def report(share: float, desc: str = "") -> None:
        clock.report(share)
        progress(share, desc=desc + clock.left())

    return report


@contextlib.contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A `Progress` drawn on stderr every second while the block runs, if that is a terminal."""
    clock, done, state = _Clock(), threading.Event(), [0.0, ""]

    def report(share: float, desc: str = "") -> None:
        clock.report(share)
        state[:] = share, desc

    def draw(tqdm_bar: tqdm) -> None:
        wait = DELAY
        while not done.wait(wait):
            tqdm_bar.n, wait = state[0], 1.0
            tqdm_bar.set_postfix_str(state[1] + clock.left())

    tqdm_bar = tqdm(total=1.0, desc=title, bar_format=FORM, delay=DELAY, leave=False, disable=None)
    thread = threading.Thread(target=draw, args=(tqdm_bar,), daemon=True)
    if not tqdm_bar.disable:
        thread.start()
    try:
        yield report
    finally:
        done.set()
        if thread.ident:
            thread.join()
        tqdm_bar.close()


class _Clock:
    """Estimate the time left from the shares reported so far."""

    def __init__(self):
        self.start, self.end = time.monotonic(), None

    def report(self, share: float) -> None:
        now = time.monotonic()
        if share <= 0:
            self.start, self.end = now, None
        else:
            self.end = now + (now - self.start) * (1 - share) / share

    def left(self) -> str:
        """ ", about 40 s left", or nothing if that is unknown or below 3 s."""
        seconds = 0 if self.end is None else round(self.end - time.monotonic())
        if seconds < 3:
            return ""
        time_left = f"{seconds} s" if seconds < 100 else f"{seconds / 60:.0f} min"
        return f", about {time_left} left"
