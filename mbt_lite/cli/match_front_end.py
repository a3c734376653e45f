"""`mbt-lite match-front-end`: find the front end that a model was trained with."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mbt_lite.cli.options import Debug, Model, benchmark, load_model


@dataclass(frozen=True)
class MatchFrontEnd:
    """Rank front ends by how well a model answers through each, on labeled clips.

    The released weights came without the recipe of their spectrograms: try yours. --prove trains
    small models through hidden recipes instead and shows which of them are found (20 minutes).
    """

    example: ClassVar[str] = "mbt-lite match-front-end --model as500k-rgb-spec --data my_clips"

    model: Model = "as500k-rgb-spec"
    data: Path | None = None
    """A table (CSV) of labelled clips, a folder with labels.csv, or a folder of class folders."""
    views: int = 1
    """Windows per file, evenly spread, their logits averaged."""
    presets: tuple[str, ...] = ()
    """Only these; without it, all. With --prove: which to hide."""
    out: Path | None = None
    """Where the video goes (PNG)."""
    prove: bool = False
    """Hide each preset in a small model and look for it; needs neither --model nor --data."""
    json: bool = False
    """JSON instead of a table."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite.features import front_end

        for name in self.presets:
            front_end(name)
        if self.out is not None and self.out.suffix.lower() != ".png":
            raise ValueError(f"--out {self.out}: only .png images can be written.")
        return self._prove() if self.prove else self._match()

    def _match(self) -> int:
        from mbt_lite import plot
        from mbt_lite.evaluation.front_end_match import match_front_end

        if self.data is None or self.views < 1:
            raise ValueError(f"labelled clips are needed, and 1 view or more; try: {self.example}")
        found = match_front_end(
            load_model(self.model), self.data, self.presets or None, views=self.views
        )
        if self.json:
            print(json.dumps(found.to_dict(), indent=1))
        else:
            print(found.table())
            print(_use(self.model, found))
        if self.out is not None:
            plot.save(plot.front_end_match(found), self.out)
        return 0

    def _prove(self) -> int:
        from mbt_lite import plot

        front_end_recovery = benchmark("front_end_recovery")
        trials = front_end_recovery.prove(self.presets or None)
        print(front_end_recovery.to_json(trials) if self.json else front_end_recovery.table(trials))
        if self.out is not None:
            plot.save(plot.front_end_recovery(trials), self.out)
        return 0


def _use(model: str, found) -> str:
    """How to answer through the front end that was found."""
    if found.settled:
        return "Nothing speaks against the front end that the model was loaded with: keep it."
    name = found.best.argument
    return (
        f"Use it: mbt-lite predict CLIP --model {model} --front-end {name}\n"
        f'    or: mbt.load("{model}", front_end="{name}")'
    )
