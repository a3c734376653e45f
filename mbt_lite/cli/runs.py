"""The micro-world, and speed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from mbt_lite.cli.options import Debug


@dataclass(frozen=True)
class World:
    """Render clips of the micro-world as mp4 files, with labels.csv and the answer key.

    With --classes each class gets a folder of clips in which it is the only one that is true, as
    `mbt-lite train` takes them.
    """

    example: ClassVar[str] = (
        'mbt-lite world --classes "circle sings" "ring sings" --split train --out clips -n 20'
    )

    out: Path
    """The folder for the clips."""
    n: Annotated[int, arg(aliases=["-n"])] = 20
    """How many; with --classes, of each."""
    classes: tuple[str, ...] = ()
    """Labels of the micro-world, two or more; otherwise the scenes come as they are."""
    split: str = "test"
    """train, validation or test: which scenes."""
    size: int = 160
    """Pixels a side."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import class_folders, world

        if self.split not in world.SPLITS:
            raise ValueError(f"--split {self.split}: choose one of {', '.join(world.SPLITS)}.")
        if self.n < 1 or self.size < 32 or self.size % 2:
            raise ValueError(
                f"-n {self.n} must be 1 or more, --size {self.size} even and 32 or more."
            )
        if self.classes:
            class_folders.render(self.classes, self.n, self.split, self.out, self.size)
        else:
            scenes = [world.scene(world.SPLITS[self.split], index) for index in range(self.n)]
            world.render(scenes, self.out, self.size)
        print(self.out)
        return 0


@dataclass(frozen=True)
class Bench:
    """Speed of the parts on this machine, each beside an alternative; of the data; of training."""

    example: ClassVar[str] = "mbt-lite bench train --batch 16 --steps 20"

    what: Positional[Literal["parts", "model", "attention", "data", "train"]] = "parts"
    """model: forward pass and gradient at full size, beside the usual formulation. attention: what
    seeing the bottleneck of a full-size clip costs. data: how fast full-size clips are read, beside
    tf.data. train: steps of the full model."""
    clips: int = 64
    """data: how many a round."""
    tensorflow: str | None = None
    """data: a Python that has TensorFlow, for the comparison."""
    long: int = 0
    """data: so many clips more, to see whether the memory grows."""
    batch: int = 1
    """train: clips of a step."""
    steps: int = 5
    """train: how many are timed."""
    keep_activations: bool = False
    """train: do not compute blocks again in the backward pass."""
    only: str = ""
    """model, train: only cases that hold this, such as "8 frames" or bfloat16."""
    json: bool = False
    """JSON instead of a table."""
    debug: Debug = False

    def run(self) -> int:
        if self.what == "parts":
            from mbt_lite.bench import measure, table

            measured = measure()
        elif self.what == "model":
            from mbt_lite.bench import measure_model, table

            measured = measure_model(self.only)
        elif self.what == "attention":
            from mbt_lite.bench import measure_attention, table

            measured = measure_attention()
        elif self.what == "data":
            from mbt_lite.throughput import measure, table

            measured = measure(self.clips, self.tensorflow, self.long)
        else:
            from mbt_lite.pace import measure, table

            measured = measure(self.batch, self.steps, not self.keep_activations, self.only)
        print(json.dumps(measured, indent=1) if self.json else table(measured))
        return 0
