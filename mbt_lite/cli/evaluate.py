"""Scores of a model on labelled data."""

import json
from dataclasses import dataclass
from typing import ClassVar

from mbt_lite.cli.options import Debug, Model


@dataclass(frozen=True)
class Evaluate:
    """Scores of a model on labelled data, as JSON."""

    example: ClassVar[str] = "mbt-lite evaluate --model world-tiny --data world:test"

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
