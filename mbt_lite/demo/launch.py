"""Start the demo: from the name of a model to a page."""

import hmac
import signal
import sys
import threading
from collections.abc import Callable
from types import ModuleType

from mbt_lite.demo.engine import Engine, called
from mbt_lite.demo.manners import Page
from mbt_lite.demo.page import build
from mbt_lite.progress import bar


def start(
    model: str = "world-tiny",
    port: int | None = None,
    share: bool = False,
    password: str | None = None,
) -> Page:
    """The page of a model, which is compiled first; ValueError or OSError where there is no use.

    Under `gradio app.py` this happens again after each change, without a main module, which
    processes cannot be begun without.
    """
    model = called(model)
    sys.modules.setdefault("__main__", ModuleType("__main__"))
    print(f"Loading and compiling {model}: up to half a minute ...", file=sys.stderr)
    with bar(model) as progress:
        engine = Engine.of(model, progress)
    page = build(engine, model)
    page.given = {"share": share or None, "server_port": port}
    if password:
        page.given["auth"] = password_check(password)
        page.given["auth_message"] = "Any user name will do; the password was given to you."
    return page


def password_check(password: str) -> Callable[[str, str], bool]:
    """Who lets everybody in who knows the password."""

    def knows(_user: str, said: str) -> bool:
        return hmac.compare_digest(said.encode(), password.encode())

    return knows


def end_tidily() -> None:
    """Let SIGTERM end this program as Ctrl-C does, so that the uploads are deleted.

    Under `gradio app.py` the file runs again in a thread, which may not set that.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
