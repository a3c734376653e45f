"""Commands about weights: `mbt-lite zoo`, `convert` and `cost`."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from tyro.conf import OmitSubcommandPrefixes, Positional

from mbt_lite.cli.options import Debug, Model


@dataclass(frozen=True)
class List:
    """List all models; mAP is that of the Scenic README, not measured here."""

    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.checkpoints import zoo
        from mbt_lite.model.flops import model_cost

        row = "{:17} {:9} {:27} {:>19} {:>11} {:>6} {:>7}  {}".format
        titles = ("name", "streams", "trained on", "mAP (Scenic README)", "parameters")
        print(row(*titles, "GFLOPs", "size", "here"))
        for entry in zoo.ENTRIES.values():
            cost = model_cost(entry.config)
            numbers = f"{cost.parameters:,}", f"{cost.gflops:.3g}"
            size = f"{4 * cost.parameters / 1e6:,.0f} MB"
            model = entry.name, " ".join(entry.config.streams), entry.trained_on, entry.mAP or "-"
            print(row(*model, *numbers, size, zoo.state(entry)))
        return 0


@dataclass(frozen=True)
class Download:
    """Download a model, convert it once to safetensors, and print its path.

    An interrupted download is resumed. After the conversion it is deleted and only its sha256 kept.
    A published file that was copied into the cache folder by hand is used, and stays.
    """

    name: Positional[str]
    """A name of `mbt-lite zoo list`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 takes half the space and rounds every parameter to 8 bits of precision."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.checkpoints import zoo

        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            path = zoo.fetch(self.name, self.dtype)
        print(path)
        for note in filter(None, [*(note.message for note in notes), zoo.entry(self.name).caution]):
            print(f"note: {note}")
        return 0


@dataclass(frozen=True)
class Show:
    """Show all facts about a model of the zoo (offline) or a weights file."""

    model: Positional[str]
    """A name of the zoo, a weights file, a folder or hf://user/repo."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.checkpoints import formats, zoo
        from mbt_lite.cli import facts

        path = Path(self.model)
        entry = None if path.exists() else zoo.find(self.model)
        if not entry and not path.exists() and path.name == self.model and not path.suffix:
            zoo.entry(self.model)  # refuses, with the nearest names
        print(facts.of_entry(entry) if entry else facts.of_file(formats.find(self.model)))
        return 0


@dataclass(frozen=True)
class Zoo:
    """Published weights: list them, download one, inspect one or any file."""

    example: ClassVar[str] = "mbt-lite zoo show as500k-rgb-spec"

    do: OmitSubcommandPrefixes[List | Download | Show]

    def run(self) -> int:
        return self.do.run()


@dataclass(frozen=True)
class Convert:
    """Convert weights to another format, chosen by the ending of the target.

    .safetensors is ours; .npz has Scenic's names, flat; .msgpack is a Scenic parameter tree as Flax
    writes it. The source may be any of these, or a Scenic checkpoint file or folder.
    """

    example: ClassVar[str] = "mbt-lite convert checkpoint_123 model.safetensors"

    source: Positional[str]
    """A weights file, a folder, a name of the zoo or hf://user/repo."""
    target: Positional[Path]
    """The new file."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number format of the weights; bfloat16 takes half of the space and is rounded."""
    fusion_layer: int | None = None
    """The first fused layer, if the source does not give it (8 in the released models)."""
    heads: int | None = None
    """Number of attention heads, if the source does not give it."""
    rgb_shape: tuple[int, int, int] | None = None
    """Frames, height, width, if the arrays leave them open."""
    spec_shape: tuple[int, int] | None = None
    """Time and mel bins, if the arrays leave them open."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import checkpoints
        from mbt_lite.inference import weights

        names = ("fusion_layer", "heads", "rgb_shape", "spec_shape")
        overrides = {name: getattr(self, name) for name in names}
        overrides = {name: value for name, value in overrides.items() if value is not None}
        source = weights(self.source)
        print(checkpoints.convert(source, self.target, dtype=self.dtype, **overrides))
        return 0


@dataclass(frozen=True)
class Cost:
    """Count parameters and operations of a model, and of the same model with other fusion."""

    example: ClassVar[str] = "mbt-lite cost --model as500k-rgb-spec"

    model: Model = "as500k-rgb-spec"
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import checkpoints
        from mbt_lite.checkpoints import zoo
        from mbt_lite.inference import weights
        from mbt_lite.model.flops import model_cost

        entry = zoo.find(self.model)
        config = entry.config if entry else checkpoints.load(weights(self.model))[0]
        print(f"{'fusion':24} {'parameters':>13} {'GMACs':>9} {'GFLOPs':>9}   (one clip)")
        for name, way in _ways(config).items():
            cost = model_cost(replace(config, **way))
            print(f"{name:24} {cost.parameters:13,} {cost.gmacs:9,.2f} {cost.gflops:9,.2f}")
        return 0


def _ways(config) -> dict[str, dict]:
    """The model itself; with two streams also every other way to fuse them."""
    ways = {"as it is": {}}
    if len(config.streams) == 2:
        ways |= {
            "bottleneck": {"fusion": "bottleneck"},
            "joint, one encoder": {"fusion": "joint", "shared_encoder": True},
            "joint, an encoder each": {"fusion": "joint", "shared_encoder": False},
            "late": {"fusion": "late", "shared_encoder": False},
        }
    return ways
