"""Report the progress of long work: one callback, drawn in a terminal, on a page, or nowhere.

A `Progress` is called with the share that is done and with what comes next: progress(0.5,
desc="video only"). `gradio.Progress` is one. A share of 0 is preparation, such as reading and
compiling: the time left is estimated from what came after it.
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
    """Compile a jitted function for these arguments, as a stage of its own where somebody watches.

    Its next call finds it compiled.
    """
    if progress is not silent:
        progress(0, desc="compiling")
        function.lower(*arguments).compile()


def part(progress: Progress, begin: float, end: float) -> Progress:
    """A `Progress` of a piece of work, told to that of the whole, of which it is begin to end."""
    if progress is silent:
        return silent
    return lambda share, desc="": progress(begin + share * (end - begin), desc=desc)


def estimated(progress: Progress) -> Progress:
    """A `Progress` that adds the time left to what it says."""
    if progress is silent:
        return silent
    clock = _Clock()

    def report(share: float, desc: str = "") -> None:
        clock.report(share)
        progress(share, desc=desc + clock.left())

    return report


@contextlib.contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A `Progress` drawn on stderr every second while the block runs, where that is a terminal."""
    clock, done, now = _Clock(), threading.Event(), [0.0, ""]

    def report(share: float, desc: str = "") -> None:
        clock.report(share)
        now[:] = share, desc

    def draw(drawn: tqdm) -> None:
        wait = DELAY
        while not done.wait(wait):
            drawn.n, wait = now[0], 1.0
            drawn.set_postfix_str(now[1] + clock.left())

    drawn = tqdm(total=1.0, desc=title, bar_format=FORM, delay=DELAY, leave=False, disable=None)
    thread = threading.Thread(target=draw, args=(drawn,), daemon=True)
    if not drawn.disable:
        thread.start()
    try:
        yield report
    finally:
        done.set()
        if thread.ident:
            thread.join()
        drawn.close()


class _Clock:
    """The time left, from the shares that were done when."""

    def __init__(self):
        self.begun, self.end = time.monotonic(), None

    def report(self, share: float) -> None:
        now = time.monotonic()
        if share <= 0:
            self.begun, self.end = now, None
        else:
            self.end = now + (now - self.begun) * (1 - share) / share

    def left(self) -> str:
        """ ", about 40 s left", or nothing where that is unknown or soon over."""
        seconds = 0 if self.end is None else round(self.end - time.monotonic())
        if seconds < 3:
            return ""
        return (
            f", about {seconds} s left" if seconds < 100 else f", about {seconds / 60:.0f} min left"
        )
