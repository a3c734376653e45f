"""`mbt-lite zoo`: list models by name, and inspect any weights file."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tyro.conf import OmitSubcommandPrefixes, Positional

from mbt_lite.cli.options import Debug
from mbt_lite.model.flops import model_cost


@dataclass(frozen=True)
class List:
    """List all models; mAP is that of the Scenic README, not measured here."""

    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.checkpoints import zoo

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
