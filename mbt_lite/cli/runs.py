"""The micro-world, training, and speed."""

import json
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from tyro.conf import Positional, Suppress, arg

from mbt_lite.cli.options import Debug


@dataclass(frozen=True)
class World:
    """Render clips of the micro-world as mp4 files, with labels.csv and the answer key."""

    example: ClassVar[str] = "mbt-lite world --out clips -n 20"

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

    example: ClassVar[str] = (
        "mbt-lite train --config mbt_lite/configs/world.py --workdir runs/world"
    )

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
class Bench:
    """Speed of the parts on this machine, each beside an alternative; or of the data alone."""

    example: ClassVar[str] = "mbt-lite bench data --tensorflow ~/tf/bin/python --long 10000"

    what: Positional[Literal["parts", "data"]] = "parts"
    """data: how fast full-size clips are read, beside tf.data."""
    clips: int = 64
    """data: how many a round."""
    tensorflow: str | None = None
    """data: a Python that has TensorFlow, for the comparison."""
    long: int = 0
    """data: so many clips more, to see whether the memory grows."""
    json: bool = False
    """JSON instead of a table."""
    debug: Debug = False

    def run(self) -> int:
        if self.what == "parts":
            from mbt_lite.bench import measure, table

            measured = measure()
        else:
            from mbt_lite.throughput import measure, table

            measured = measure(self.clips, self.tensorflow, self.long)
        print(json.dumps(measured, indent=1) if self.json else table(measured))
        return 0
