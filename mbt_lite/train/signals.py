"""Handle Ctrl-C and SIGTERM after a whole step; SIGUSR1 requests a profile."""

import contextlib
import os
import signal
import socket
import sys
import threading

LEFT = 75  # exit code of a run that was interrupted and goes on when it is started again
NOTED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Notes signals from the time it is entered: `asked` is the name of the first, or None.

    A second Ctrl-C is KeyboardInterrupt, for those who will not wait. With `may_exit`, for a
    program of its own, a signal ends the process with code 75 wherever there is `nothing_to_lose`,
    even while the compiler holds the main thread. Elsewhere than in the main thread, which alone
    may handle signals, nothing is noted.
    """

    def __init__(self, may_exit: bool = False):
        self.asked: str | None = None
        self.profile = False
        self._may_exit, self._idle, self._before = may_exit, False, {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            handled = {number: self._note for number in NOTED} | {signal.SIGUSR1: self._profile}
            self._before = {n: signal.signal(n, handler) for n, handler in handled.items()}
            if self._may_exit:
                self._watch()
        return self

    def __exit__(self, *_) -> None:
        if self._before and self._may_exit:
            signal.set_wakeup_fd(-1)
            self._woken.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def nothing_to_lose(self):
        """A block whose work can be done again, such as compiling and scoring."""
        self._idle = True
        if self.asked:
            self._leave()
        try:
            yield
        finally:
            self._idle = False

    def _note(self, number: int, _frame) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked:
            print("\nStopping after this step; its state is being saved.", file=sys.stderr)
        self.asked = self.asked or signal.Signals(number).name

    def _profile(self, _number: int, _frame) -> None:
        self.profile = True

    def _watch(self) -> None:
        """A thread that hears of signals at once; handlers wait until the compiler comes back."""
        self._woken, waker = socket.socketpair()
        waker.setblocking(False)
        self._waker = waker
        signal.set_wakeup_fd(waker.fileno())
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            while heard := self._woken.recv(1):
                if heard[0] in NOTED and self._idle:
                    self._leave()

    def _leave(self) -> None:
        if self._may_exit:
            print(
                "mbt-lite: interrupted; all there was is saved. The same command goes on.",
                file=sys.stderr,
                flush=True,
            )
            os._exit(LEFT)
