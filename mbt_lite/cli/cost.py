"""`mbt-lite cost`: count what a model costs."""

import dataclasses
import json
from dataclasses import dataclass
from typing import ClassVar

from mbt_lite.cli.options import Debug, Model
from mbt_lite.model.flops import model_cost


@dataclass(frozen=True)
class Cost:
    """Count parameters and operations of a model, and of the same model with other fusion."""

    example: ClassVar[str] = "mbt-lite cost --model as500k-rgb-spec"

    model: Model = "as500k-rgb-spec"
    json: bool = False
    """JSON instead of a table."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import checkpoints
        from mbt_lite.checkpoints import zoo
        from mbt_lite.inference import weights

        entry = zoo.find(self.model)
        config = entry.config if entry else checkpoints.load(weights(self.model))[0]
        rows = _rows(config)
        if self.json:
            print(json.dumps(rows, indent=1))
        else:
            print(_table(rows))
        return 0


def _rows(config) -> list[dict]:
    """The model itself; with two streams also every other way to fuse them."""
    ways = {"as it is": {}}
    if len(config.streams) == 2:
        ways |= {
            "bottleneck": {"fusion": "bottleneck"},
            "joint, one encoder": {"fusion": "joint", "shared_encoder": True},
            "joint, an encoder each": {"fusion": "joint", "shared_encoder": False},
            "late": {"fusion": "late", "shared_encoder": False},
        }
    costs = {name: model_cost(dataclasses.replace(config, **way)) for name, way in ways.items()}
    return [
        {"fusion": name, "parameters": c.parameters, "GMACs": c.gmacs, "GFLOPs": c.gflops}
        for name, c in costs.items()
    ]


def _table(rows: list[dict]) -> str:
    lines = [f"{'fusion':24} {'parameters':>13} {'GMACs':>9} {'GFLOPs':>9}   (one clip)"]
    lines += [
        f"{row['fusion']:24} {row['parameters']:13,} {row['GMACs']:9,.2f} {row['GFLOPs']:9,.2f}"
        for row in rows
    ]
    return "\n".join(lines)
