"""The command `mbt-lite`: results go to stdout, progress to stderr, errors are sentences.

Exit codes: 0 all well, 1 the input's fault, 2 a wrong command line.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import threading

import tyro

from mbt_lite.cli.answers import Predict
from mbt_lite.cli.build import Build
from mbt_lite.cli.convert import Convert
from mbt_lite.cli.cost import Cost
from mbt_lite.cli.demo import Demo
from mbt_lite.cli.doctor import Doctor
from mbt_lite.cli.evaluate import Evaluate
from mbt_lite.cli.explain import Attention, Faithfulness, Flow, Swap
from mbt_lite.cli.match_front_end import MatchFrontEnd
from mbt_lite.cli.prepare import Prepare
from mbt_lite.cli.runs import Bench, World
from mbt_lite.cli.train import Sweep, Train
from mbt_lite.cli.zoo import Zoo
from mbt_lite.paths import FULL

COMMANDS = {
    "predict": Predict,
    "demo": Demo,
    "attention": Attention,
    "flow": Flow,
    "swap": Swap,
    "faithfulness": Faithfulness,
    "doctor": Doctor,
    "world": World,
    "prepare": Prepare,
    "build": Build,
    "train": Train,
    "sweep": Sweep,
    "evaluate": Evaluate,
    "match-front-end": MatchFrontEnd,
    "convert": Convert,
    "cost": Cost,
    "bench": Bench,
    "zoo": Zoo,
}


def _split_overrides(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """The command's own options, and those of the experiment (`--train.steps 100`), with values."""
    own, dotted, current = [], [], None
    for word in arguments:
        if current is None or word.startswith("--"):
            name = word.partition("=")[0]
            current = dotted if name.startswith("--") and "." in name else own
        current.append(word)
    return own, tuple(dotted)


def _overview() -> str:
    lines = [f"  {name:16} {command.__doc__.splitlines()[0]}" for name, command in COMMANDS.items()]
    examples = [f"  {command.example}" for command in COMMANDS.values()]
    return "\n".join(["usage: mbt-lite COMMAND [-h] ...", "", *lines, "", "examples:", *examples])


def _sentence(error: Exception) -> str:
    """What an error says to a person; of the system's errors, which file and why."""
    if isinstance(error, OSError) and error.errno in FULL:
        where = f"{error.filename}: " if error.filename else ""
        return (
            f"{where}the disk is full ({str(error.strerror).lower()}); make room, or choose "
            "another path. Nothing half-written is left."
        )
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {str(error.strerror).lower()}; choose another path."
    return str(error)


@contextlib.contextmanager
def _keeping_interrupts():
    """Ctrl-C comes again if it fell into a callback that may raise nothing; JAX has some."""
    before = sys.unraisablehook

    def hook(lost) -> None:
        if lost.exc_type is KeyboardInterrupt:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _replace_letters() -> None:
    """Letters that the output cannot hold, as on Windows, are written as their number."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _calm_bars() -> None:
    """Progress that goes into a file is a line now and then, not a bar that is redrawn."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # s; tqdm reads it when it is imported


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    _replace_letters()
    _calm_bars()
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name not in COMMANDS:
        print(f"mbt-lite: no command {name!r}; there are {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    if "" in arguments[1:] and name != "train":
        said = "an empty name was given; is a variable of the command not set? Name a file."
        print(f"mbt-lite: {said}", file=sys.stderr)
        return 2
    own, rest = arguments[1:], ()
    if name == "train":
        own, rest = _split_overrides(own)
    try:
        made = tyro.cli(
            COMMANDS[name],
            args=own,
            prog=f"mbt-lite {name}",
            description=f"{COMMANDS[name].__doc__}\n\nExample: {COMMANDS[name].example}",
        )
    except SystemExit as stop:
        if name == "train" and not stop.code:  # after --help
            from mbt_lite.cli.fields import listing

            print(listing())
        raise
    try:
        with _keeping_interrupts():
            return dataclasses.replace(made, rest=rest).run() if rest else made.run()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        if made.debug:
            raise
        print(f"mbt-lite: {_sentence(error)}", file=sys.stderr)
        return 1
    except MemoryError as error:
        print(f"mbt-lite: the memory does not suffice ({error}); ask for less.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:  # a download says what it keeps
        left = str(stop) or "interrupted; what is there is whole, what is missing was not finished."
        print(f"mbt-lite: {left}", file=sys.stderr)
        return 130
