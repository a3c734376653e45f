"""`mbt-lite …`: every command prints results on stdout, progress on stderr, errors as sentences.

Exit codes: 0 all well, 1 the input's fault, 2 a wrong command line.
"""

import dataclasses
import json
import os
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, Suppress, arg

EXAMPLES = {
    "predict": "mbt-lite predict data_samples/*.mp4 --top 3",
    "attention": "mbt-lite attention data_samples/circle_sings.mp4 --out map.png",
    "world": "mbt-lite world --out clips -n 20",
    "train": "mbt-lite train --config mbt_lite/configs/world.py --workdir runs/world",
    "evaluate": "mbt-lite evaluate --model world-tiny --data world:test",
    "bench": "mbt-lite bench",
}
Debug = Annotated[bool, arg(help="Show the traceback of an error.")]
Model = Annotated[str, arg(help="An embedded model's name, a weights file or a run folder.")]


@dataclass(frozen=True)
class Predict:
    """What is seen and heard in clips: the likeliest labels, and what each stream alone says."""

    clips: Positional[tuple[Path, ...]]
    """Video or sound files."""
    model: Model = "world-tiny"
    top: int = 5
    """How many labels to print."""
    views: int = 1
    """Windows per file, evenly spread, their logits averaged."""
    start: float | None = None
    """Take one window from this second on instead."""
    json: bool = False
    """One JSON object a line instead of text."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.inference import load

        if not self.clips:
            raise ValueError("no clip given; try: " + EXAMPLES["predict"])
        if self.top < 1 or self.views < 1:
            raise ValueError(f"--top {self.top} and --views {self.views}: each must be 1 or more.")
        classifier, failed = load(self.model), 0
        for path in self.clips:
            try:
                answer = classifier.predict(path, self.views, self.start)
            except (ValueError, OSError) as error:
                failed += 1
                self._fail(path, error)
            else:
                self._show(path, answer)
        return int(failed > 0)

    def _fail(self, path: Path, error: Exception) -> None:
        if self.debug:
            raise error
        if self.json:
            print(json.dumps({"file": str(path), "error": str(error)}), flush=True)
        print(f"mbt-lite: {error}", file=sys.stderr, flush=True)

    def _show(self, path: Path, answer) -> None:
        if self.json:
            streams = {name: dict(one.top(self.top)) for name, one in answer.streams.items()}
            row = {"top": dict(answer.top(self.top)), "streams": streams, "notes": answer.notes}
            print(json.dumps({"file": str(path), **row}), flush=True)
            return
        print(path)
        for label, probability in answer.top(self.top):
            print(f"  {probability:5.1%}  {label}")
        for name, one in answer.streams.items():
            best = ", ".join(f"{label} {p:.0%}" for label, p in one.top(3))
            print(f"  {'sound' if name == 'spec' else 'picture'} alone: {best}")
        for note in answer.notes:
            print(f"  note: {note}")
        sys.stdout.flush()


@dataclass(frozen=True)
class Attention:
    """A picture of what the bottleneck (or a class token) reads in a clip."""

    clip: Positional[Path]
    """A video file."""
    out: Path
    """Where the PNG goes."""
    model: Model = "world-tiny"
    query: str = "bottleneck"
    """bottleneck or cls."""
    layer: int | None = None
    """The layer, counted from 0; without it the last one whose reading matters."""
    start: float | None = None
    """Take the window from this second on instead of the middle."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import plot
        from mbt_lite.features import read_views
        from mbt_lite.inference import load

        if self.out.suffix != ".png":
            raise ValueError(f"--out {self.out}: only .png pictures can be written.")
        classifier = load(self.model)
        view = read_views(self.clip, classifier.clip_config, start=self.start)[0]
        layers = None if self.layer is None else (self.layer,)
        maps = classifier.attention(view.clip, self.query, layers)
        figure = plot.attention(view, maps, classifier.clip_config)
        temporary = self.out.with_name(f".{self.out.name}.part")
        figure.savefig(temporary, format="png", dpi=120)
        temporary.replace(self.out)
        print(self.out)
        return 0


@dataclass(frozen=True)
class World:
    """Render clips of the micro-world as mp4 files, with labels.csv and the answer key."""

    out: Path
    """The folder for the clips."""
    n: Annotated[int, arg(aliases=["-n"])] = 20
    """How many."""
    split: str = "test"
    """train, validation or test: which scenes."""
    size: int = 160
    """Pixels a side."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import world

        if self.split not in world.SPLITS:
            raise ValueError(f"--split {self.split}: choose one of {', '.join(world.SPLITS)}.")
        if self.n < 1 or self.size < 32 or self.size % 2:
            raise ValueError(
                f"-n {self.n} must be 1 or more, --size {self.size} even and 32 or more."
            )
        scenes = [world.scene(world.SPLITS[self.split], index) for index in range(self.n)]
        world.render(scenes, self.out, self.size)
        print(self.out)
        return 0


@dataclass(frozen=True)
class Train:
    """Train a model, or go on where an interrupted run stopped.

    Fields of the experiment are changed at the end of the line: --train.steps 100 --model.depth 6.
    """

    config: Path
    """A file with experiment(); see mbt_lite/configs."""
    workdir: Path
    """The folder of the run."""
    rest: Suppress[tuple[str, ...]] = ()  # fields of the experiment to change
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.train import fit

        if not self.config.is_file():
            raise ValueError(f"--config {self.config} is no file; try mbt_lite/configs/world.py.")
        made = runpy.run_path(str(self.config)).get("experiment")
        if made is None:
            raise ValueError(f"{self.config} defines no experiment().")
        experiment = tyro.cli(type(made()), default=made(), args=self.rest, prog="mbt-lite train")
        print(fit(experiment, self.workdir).folder / "model.safetensors")
        return 0


@dataclass(frozen=True)
class Evaluate:
    """Scores of a model on labelled data, as JSON."""

    model: Model = "world-tiny"
    data: str = "world:test"
    """world:train, world:validation or world:test."""
    count: int = 2000
    """How many clips."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.inference import load
        from mbt_lite.train import evaluate

        source, _, split = self.data.partition(":")
        print(json.dumps(evaluate(load(self.model), source, split or "test", self.count), indent=1))
        return 0


@dataclass(frozen=True)
class Bench:
    """Speed of the parts on this machine, each beside an alternative."""

    json: bool = False
    """JSON instead of a table."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import bench

        measured = bench.measure()
        print(json.dumps(measured, indent=1) if self.json else bench.table(measured))
        return 0


def _split_overrides(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """The command's own options, and those of the experiment (`--train.steps 100`)."""
    names = [word.partition("=")[0] for word in arguments]
    dotted = [i for i, name in enumerate(names) if name.startswith("--") and "." in name]
    cut = min(dotted, default=len(arguments))
    return arguments[:cut], tuple(arguments[cut:])


def _overview(commands: dict) -> str:
    lines = [f"  {name:10} {command.__doc__.splitlines()[0]}" for name, command in commands.items()]
    examples = [f"  {example}" for example in EXAMPLES.values()]
    return "\n".join(["usage: mbt-lite COMMAND [-h] ...", "", *lines, "", "examples:", *examples])


def _sentence(error: Exception) -> str:
    """What an error says to a person; of the system's errors, which file and why."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {str(error.strerror).lower()}; choose another path."
    return str(error)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    commands = {
        "predict": Predict,
        "attention": Attention,
        "world": World,
        "train": Train,
        "evaluate": Evaluate,
        "bench": Bench,
    }
    arguments = sys.argv[1:] if arguments is None else arguments
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(_overview(commands))
        return 0
    if name not in commands:
        print(f"mbt-lite: no command {name!r}; there are {', '.join(commands)}.", file=sys.stderr)
        return 2
    own, rest = arguments[1:], ()
    if name == "train":
        own, rest = _split_overrides(own)
    made = tyro.cli(
        commands[name],
        args=own,
        prog=f"mbt-lite {name}",
        description=f"{commands[name].__doc__}\n\nExample: {EXAMPLES[name]}",
    )
    try:
        return dataclasses.replace(made, rest=rest).run() if rest else made.run()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        if made.debug:
            raise
        print(f"mbt-lite: {_sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mbt-lite: interrupted; nothing half-written was left.", file=sys.stderr)
        return 130
