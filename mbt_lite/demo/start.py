"""From the command line to the page."""

import argparse
import hmac
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import ModuleType

from mbt_lite import zoo
from mbt_lite.demo.engine import Engine, called
from mbt_lite.demo.manners import Page
from mbt_lite.demo.page import build


def start(arguments: Sequence[str] = ()) -> Page:
    """The page that these arguments ask for, its model compiled; exits with a sentence.

    Under `gradio app.py` this happens again after each change, without a main module, which
    processes cannot be begun without.
    """
    given = options(arguments)
    given.model = called(given.model)
    sys.modules.setdefault("__main__", ModuleType("__main__"))
    print(f"Loading and compiling {given.model}: up to half a minute ...", file=sys.stderr)
    try:
        page = build(Engine.of(given.model), given.model)
    except (ValueError, OSError) as error:
        sys.exit(f"app.py: {error}")
    page.given = {"share": given.share or None, "server_port": given.port}
    if given.password:
        page.given["auth"] = keeper(given.password)
        page.given["auth_message"] = "Any user name will do; the password was given to you."
    return page


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """What the arguments say; the environment names another model or port, too."""
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="Ask a model what it sees and hears, in the browser. Programs have an API, "
        "which the page's footer tells; where gradio[mcp] is installed, it is an MCP server, too.",
        epilog=f"The zoo: {', '.join(zoo.ENTRIES)}. `gradio app.py` shows changes of the code at "
        "once; it takes these options after two dashes: gradio app.py -- --model NAME.",
    )
    model = os.environ.get("MBT_MODEL", "world-tiny")
    parser.add_argument("--model", default=model, help="a name or a path (default: %(default)s)")
    parser.add_argument("--port", type=int, help="instead of the first free one from 7860 on")
    parser.add_argument(
        "--share", action="store_true", help="a public address for three days, through gradio.live"
    )
    parser.add_argument("--password", help="ask for it at the door; any user name will do")
    return parser.parse_args(arguments)


def keeper(password: str) -> Callable[[str, str], bool]:
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
