"""`mbt-lite zoo`: list models by name, and inspect any weights file."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import OmitSubcommandPrefixes, Positional, arg

from mbt_lite.cli.options import Debug
from mbt_lite.model.flops import model_cost

Json = Annotated[bool, arg(help="JSON instead of text.")]


@dataclass(frozen=True)
class List:
    """List all models; mAP is that of the Scenic README, not measured here."""

    json: Json = False
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.checkpoints import zoo

        rows = [_row(entry, zoo.state(entry)) for entry in zoo.ENTRIES.values()]
        print(json.dumps(rows, indent=1) if self.json else _table(rows))
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
        for note in notes:
            print(f"note: {note.message}")
        if caution := zoo.entry(self.name).caution:
            print(f"note: {caution}")
        return 0


@dataclass(frozen=True)
class Show:
    """Show all facts about a model of the zoo (offline) or a weights file."""

    model: Positional[str]
    """A name of the zoo, a weights file, a folder or hf://user/repo."""
    json: Json = False
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.checkpoints import zoo
        from mbt_lite.cli import facts

        entry = None if Path(self.model).exists() else zoo.find(self.model)
        rows = facts.of_entry(entry) if entry else facts.of_file(_path(self.model))
        print(json.dumps(rows, indent=1) if self.json else facts.text(rows))
        return int(rows.get("checksum", {}).get("state") == "wrong")


@dataclass(frozen=True)
class Zoo:
    """Published weights: list them, download one, inspect one or any file."""

    example: ClassVar[str] = "mbt-lite zoo show as500k-rgb-spec"

    do: OmitSubcommandPrefixes[List | Download | Show]

    @property
    def debug(self) -> bool:
        return self.do.debug

    def run(self) -> int:
        return self.do.run()


def _row(entry, state: str) -> dict:
    cost = model_cost(entry.config)
    return {
        "name": entry.name,
        "streams": list(entry.config.streams),
        "trained_on": entry.trained_on,
        "mAP_scenic_readme": entry.mAP,
        "parameters": cost.parameters,
        "gflops": round(cost.gflops, 3),
        "bytes": 4 * cost.parameters,
        "state": state,
    }


def _table(rows: list[dict]) -> str:
    from mbt_lite.checkpoints.download import amount

    heads = "name streams trained~on mAP~(Scenic~README) parameters GFLOPs size here"
    lines = [[head.replace("~", " ") for head in heads.split()]]
    for row in rows:
        mAP = "-" if row["mAP_scenic_readme"] is None else f"{row['mAP_scenic_readme']}"
        numbers = [f"{row['parameters']:,}", f"{row['gflops']:.3g}", amount(row["bytes"])]
        streams = " ".join(row["streams"])
        lines.append([row["name"], streams, row["trained_on"], mAP, *numbers, row["state"]])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 3 <= i <= 6 else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _path(model: str) -> Path:
    """The file of a model that is not in the zoo."""
    from mbt_lite.checkpoints import download, zoo

    if model.startswith("hf://"):
        return download.hub_file(model)
    path = Path(model)
    if not path.exists() and path.name == model and not path.suffix:
        zoo.entry(model)  # refuses, with the nearest names
    return path
