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
