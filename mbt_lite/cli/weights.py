"""Commands about weights: `mbt-lite zoo`, `convert` and `cost`."""

import json
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
    A published file that was copied into the cache folder by hand is used, and stays. A model with
    an audio stream is tested once, see `mbt-lite zoo verify`.
    """

    name: Positional[str]
    """A name of `mbt-lite zoo list`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 takes half the space and rounds every parameter to 8 bits of precision."""
    verify: bool = True
    """Run the self-test, which takes a few minutes, unless it has run before."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.checkpoints import zoo

        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            path = zoo.fetch(self.name, self.dtype)
        print(path)
        for note in notes:
            print(f"note: {note.message}")
        entry, tested = zoo.entry(self.name), zoo.read_self_test(path)
        caution = tested["caution"] if tested else entry.caution
        if self.verify and not tested and entry.released and "spec" in entry.config.streams:
            try:
                caution = _verify(path).verdict()
            except ValueError as error:  # such as classes whose names could not be downloaded
                print(f"note: no self-test: {error}")
        if caution:
            print(f"note: {caution}")
        return 0


def _verify(source: Path):
    """Test the weights of a file or folder, and store the result beside them."""
    from mbt_lite.checkpoints import formats, zoo
    from mbt_lite.cli.options import load_model
    from mbt_lite.evaluation.self_test import self_test
    from mbt_lite.paths import write_text
    from mbt_lite.progress import bar

    file = formats.find(source)
    model = load_model(str(file))
    with bar("self-test") as progress:
        test = self_test(model, progress=progress)
    write_text(zoo.self_test_file(file), json.dumps(test.to_dict(), indent=1) + "\n")
    return test


@dataclass(frozen=True)
class Verify:
    """Find a model's front end and the order of its classes by generated sounds.

    The released weights came without the recipe of their spectrograms. The model hears sounds whose
    AudioSet label is certain through every front end. The one with which it recognizes them best is
    stored beside the weights, used from then on, and named with every answer. Takes about three
    minutes for a large model on two CPU cores.
    """

    model: Positional[str]
    """A name of the zoo, a weights file, a folder or hf://user/repo."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.inference import weights

        test = _verify(weights(self.model))
        print(test.table())
        return int(not test.recognized)


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
    """Published weights: list them, download one, inspect or test one or any file."""

    example: ClassVar[str] = "mbt-lite zoo show as500k-rgb-spec"

    do: OmitSubcommandPrefixes[List | Download | Show | Verify]

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
