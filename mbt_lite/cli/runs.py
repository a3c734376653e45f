"""`mbt-lite world` and `mbt-lite bench`: render the micro-world, measure speed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from mbt_lite.cli.options import Debug, benchmark


@dataclass(frozen=True)
class World:
    """Render clips of the micro-world as mp4 files, with labels.csv and the answer key.

    With --classes each class gets a folder of clips that have this label only, ready for
    `mbt-lite train`.
    """

    example: ClassVar[str] = (
        'mbt-lite world --classes "circle sings" "ring sings" --split train --out clips -n 20'
    )

    out: Path
    """The folder for the clips."""
    n: Annotated[int, arg(aliases=["-n"])] = 20
    """The number of clips; with --classes, of each class."""
    classes: tuple[str, ...] = ()
    """Two or more labels of the micro-world; default: scenes with any labels."""
    split: Literal["train", "validation", "test"] = "test"
    """The scenes of train, validation or test."""
    size: int = 160
    """Pixels a side."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.data import class_folders, world

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
    """Measure speed on this machine, each part next to an alternative."""

    example: ClassVar[str] = 'mbt-lite bench --only "forward, 8 frames"'

    what: Positional[Literal["all", "growth", "data", "train"]] = "all"
    """all: every part and the whole model next to an alternative. growth: the cost of a full-size
    model with more tokens, fused layers and bottleneck tokens. data: how fast full-size clips are
    read, next to tf.data. train: steps of the full model."""
    only: str = ""
    """all, train: only cases whose name contains this, such as "8 frames", "film" or bfloat16."""
    python: str | None = None
    """all, data: another Python with OpenCV, decord, TorchCodec, torchaudio or TensorFlow."""
    out: Path | None = None
    """all, growth: a folder for the measurements, as JSON, table and figure."""
    clips: int = 64
    """data: clips per round."""
    long: int = 0
    """data: additional clips, to see whether the memory grows."""
    batch: int = 1
    """train: clips per step."""
    steps: int = 5
    """train: timed steps."""
    keep_activations: bool = False
    """train: do not recompute blocks in the backward pass."""
    debug: Debug = False

    def run(self) -> int:
        import jax

        jax.config.update("jax_enable_compilation_cache", False)  # compilation is timed, too
        if self.what == "all":
            part = benchmark("run")
            measured = part.measure(self.only, self.python)
        elif self.what == "growth":
            part = benchmark("growth")
            measured = part.measure()
        elif self.what == "data":
            part = benchmark("throughput")
            measured = part.measure(self.clips, self.python, self.long)
        else:
            part = benchmark("train_step")
            recompute = not self.keep_activations
            measured = part.measure(self.batch, self.steps, recompute, self.only)
        if self.out and self.what in ("all", "growth"):
            part.save(measured, self.out)
        print(part.table(measured))
        return 0
