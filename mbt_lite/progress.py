"""Report the progress of long work: one callback, drawn in a terminal, on a page, or nowhere.

A `Progress` is called with the share that is done and the current step: progress(0.5,
desc="video only"). `gradio.Progress` is one. A share of 0 means preparation, such as reading and
compiling: the time left is estimated only from what follows it.
"""

import contextlib
from collections.abc import Callable, Iterator

Progress = Callable[..., object]


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


@contextlib.contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A `Progress` drawn on stderr while the block runs, if that is a terminal."""
    from rich import console, progress

    screen = console.Console(stderr=True, force_jupyter=False)
    if not screen.is_terminal:
        yield silent
        return
    columns = (
        "{task.description}:",
        progress.BarColumn(24),
        progress.TaskProgressColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("{task.fields[step]}"),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with progress.Progress(*columns, console=screen, transient=True) as drawn:
        task = drawn.add_task(title, total=1.0, step="")

        def report(share: float, desc: str = "") -> None:
            if share <= 0:
                drawn.reset(task)
            drawn.update(task, completed=share, step=desc, refresh=True)

        yield report
