"""`mbt-lite convert`: convert weights from one format to another."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tyro.conf import Positional

from mbt_lite.cli.options import Debug


@dataclass(frozen=True)
class Convert:
    """Convert weights to another format, chosen by the ending of the target.

    .safetensors is ours; .npz has Scenic's names, flat; .msgpack is a Scenic parameter tree as Flax
    writes it. What is read may be any of these, or a Scenic checkpoint file or folder.
    """

    example: ClassVar[str] = "mbt-lite convert checkpoint_123 model.safetensors"

    source: Positional[str]
    """A weights file, a folder, a name of the zoo or hf://user/repo."""
    target: Positional[Path]
    """The new file."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """How the weights are kept; bfloat16 takes half of the space and is rounded."""
    fusion_layer: int | None = None
    """The first fused layer, where the source does not say it (8 as released)."""
    heads: int | None = None
    """Attention heads, where the source does not say it."""
    rgb_shape: tuple[int, int, int] | None = None
    """Frames, height, width, where the arrays leave it open."""
    spec_shape: tuple[int, int] | None = None
    """Time and mel bins, where the arrays leave it open."""
    debug: Debug = False

    def run(self) -> int:
        from mbt_lite import checkpoints
        from mbt_lite.inference import weights

        names = ("fusion_layer", "heads", "rgb_shape", "spec_shape")
        said = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        print(checkpoints.convert(weights(self.source), self.target, dtype=self.dtype, **said))
        return 0
