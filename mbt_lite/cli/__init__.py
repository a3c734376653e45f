"""The command `mbt-lite`: results go to stdout, progress to stderr, errors are sentences.

Exit codes: 0 success, 1 an error in the input, 2 a wrong command line, 130 interrupted.
"""

import dataclasses
import os
import sys

import tyro

from mbt_lite.cli.build import Build
from mbt_lite.cli.demo import Demo
from mbt_lite.cli.doctor import Doctor
from mbt_lite.cli.explain import Attention, Faithfulness, Flow, Swap
from mbt_lite.cli.playground import Playground
from mbt_lite.cli.predict import Evaluate, MatchFrontEnd, Predict
from mbt_lite.cli.prepare import Prepare
from mbt_lite.cli.runs import Bench, World
from mbt_lite.cli.train import Sweep, Train
from mbt_lite.cli.weights import Convert, Cost, Zoo
from mbt_lite.paths import FULL

COMMANDS = {
    "predict": Predict,
    "demo": Demo,
    "playground": Playground,
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
    """Split into the command's own options and those of the experiment (`--train.steps 100`)."""
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
    """An error as a sentence; an error of the system names its file and the cause."""
    if isinstance(error, OSError) and error.errno in FULL:
        path = f"{error.filename}: " if error.filename else ""
        return (
            f"{path}the disk is full ({str(error.strerror).lower()}); make room, or choose "
            "another path. Nothing half-written is left."
        )
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {str(error.strerror).lower()}; choose another path."
    return str(error)


def _replace_letters() -> None:
    """Write letters that the output cannot encode, as on Windows, as their number."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _calm_bars() -> None:
    """Write progress into a file as a line now and then, not as a bar that is redrawn."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "30")  # s; tqdm reads it when it is imported


def _parse(name: str, words: list[str]):
    """The command with its options; exits for --help and for a wrong command line."""
    command = COMMANDS[name]
    own, overrides = _split_overrides(words) if name == "train" else (words, ())
    about = f"{command.__doc__}\n\nExample: {command.example}"
    try:
        parsed = tyro.cli(command, args=own, prog=f"mbt-lite {name}", description=about)
    except SystemExit as stop:
        if name == "train" and not stop.code:  # after --help
            from mbt_lite.cli import fields

            fields.print_help()
        raise
    return dataclasses.replace(parsed, rest=overrides) if overrides else parsed


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    _replace_letters()
    _calm_bars()
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_overview())
        return 0
    if name not in COMMANDS:
        return _fail(2, f"no command {name!r}; there are {', '.join(COMMANDS)}.")
    if "" in arguments[1:] and name != "train":
        return _fail(2, "an empty name was given; is a variable of the command not set?")
    try:
        return _parse(name, arguments[1:]).run()
    except BrokenPipeError:  # the reader, such as `head`, has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        if "--debug" in arguments:
            raise
        return _fail(1, _sentence(error))
    except MemoryError as error:
        return _fail(1, f"there is not enough memory ({error}); use smaller numbers.")
    except KeyboardInterrupt as stop:  # a download says what it keeps
        sentence = "interrupted; files that exist are complete, others are missing."
        return _fail(130, str(stop) or sentence)


def _fail(code: int, sentence: str) -> int:
    print(f"mbt-lite: {sentence}", file=sys.stderr)
    return code
