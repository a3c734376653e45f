"""Handle Ctrl-C and SIGTERM: training ends after a whole step, other work at once."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

EXIT_INTERRUPTED = 75  # exit code of an interrupted run, which the same command resumes


class Signals:
    """Record stop signals: `received` is the name of the first, or None."""

    received: str | None = None

    def recorded(self) -> contextlib.AbstractContextManager:
        """A block in which signals are recorded; a second Ctrl-C raises KeyboardInterrupt."""
        return _handled(self._on_stop)

    def _on_stop(self, number: int, _frame) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.received:
            print("\nStopping after this step; its state is being saved.", file=sys.stderr)
            self.received = signal.Signals(number).name


def exit_on_signal() -> contextlib.AbstractContextManager:
    """A block of a program whose work can be repeated, which a signal ends with exit code 75."""

    def stop(*_) -> None:
        print("mbt-lite: interrupted; the same command resumes.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)

    return _handled(stop)


@contextlib.contextmanager
def _handled(handler: Callable) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM in the main thread, which alone may, while the block runs."""
    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)
