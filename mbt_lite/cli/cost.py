"""`mbt-lite cost`: count what a model costs, and plot what fusion costs."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mbt_lite.cli.options import Debug, Model
from mbt_lite.model.flops import model_cost


@dataclass(frozen=True)
class Cost:
    """Count parameters and operations of a model, and of the same model with other fusion."""

    example: ClassVar[str] = "mbt-lite cost --model as500k-rgb-spec --out cost.png"

    model: Model = "as500k-rgb-spec"
    out: Path | None = None
    """Also write a figure, a .png: GFLOPs over fusion layer and over bottleneck tokens."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import checkpoints
        from mbt_lite.checkpoints import zoo
        from mbt_lite.inference import weights

        entry = zoo.find(self.model)
        config = entry.config if entry else checkpoints.load(weights(self.model))[0]
        print(f"{'fusion':24} {'parameters':>13} {'GMACs':>9} {'GFLOPs':>9}   (one clip)")
        for name, way in _ways(config).items():
            cost = model_cost(dataclasses.replace(config, **way))
            print(f"{name:24} {cost.parameters:13,} {cost.gmacs:9,.2f} {cost.gflops:9,.2f}")
        if self.out is not None:
            self._draw(config)
        return 0

    def _draw(self, config) -> None:
        from mbt_lite import plot

        if len(config.streams) < 2:
            raise ValueError(f"{self.model} has one stream and nothing to fuse; leave out --out.")
        print(plot.save(plot.cost(config), self.out))


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
