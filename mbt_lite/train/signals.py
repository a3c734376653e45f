"""Handle Ctrl-C and SIGTERM after a whole step; SIGUSR1 requests a profile."""

import contextlib
import signal
import sys
import threading

EXIT_INTERRUPTED = 75  # exit code of an interrupted run, which the same command resumes


class Signals:
    """Record stop signals while the block runs: `received` is the name of the first, or None.

    A second Ctrl-C raises KeyboardInterrupt. With `may_exit`, for a program of its own, a signal
    exits with code 75 where there is nothing to save, in a block of `exit_allowed`. Outside the
    main thread, which alone may handle signals, none is recorded.
    """

    def __init__(self, may_exit: bool = False):
        self.received: str | None = None
        self.profile = False
        self._may_exit, self._exit_allowed, self._previous = may_exit, False, {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            handlers = {
                signal.SIGINT: self._on_stop,
                signal.SIGTERM: self._on_stop,
                signal.SIGUSR1: self._on_profile,
            }
            self._previous = {n: signal.signal(n, handler) for n, handler in handlers.items()}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def exit_allowed(self):
        """A block whose work can be repeated, such as compiling and scoring."""
        self._exit_allowed = True
        try:
            if self.received:
                self._exit()
            yield
        finally:
            self._exit_allowed = False

    def _on_stop(self, number: int, _frame) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self.received = not self.received, self.received or signal.Signals(number).name
        if self._exit_allowed:
            self._exit()
        if first:
            print("\nStopping after this step; its state is being saved.", file=sys.stderr)

    def _on_profile(self, _number: int, _frame) -> None:
        self.profile = True

    def _exit(self) -> None:
        if self._may_exit:
            print(
                "mbt-lite: interrupted; everything is saved. The same command resumes the run.",
                file=sys.stderr,
            )
            sys.exit(EXIT_INTERRUPTED)
