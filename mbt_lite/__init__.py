"""mbt_lite: the Multimodal Bottleneck Transformer in JAX, small enough to read.

    import mbt_lite as mbt

    clf = mbt.load()
    clf.predict("clip.mp4").top(5)

The names below are fetched when they are first used, so that `import mbt_lite` itself stays light.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names as in _HOMES, for type checkers and editors
    from mbt_lite import configs as configs
    from mbt_lite import explain as explain
    from mbt_lite.checkpoints import from_vit as from_vit
    from mbt_lite.config import BASE as BASE
    from mbt_lite.config import WORLD as WORLD
    from mbt_lite.config import ClipConfig as ClipConfig
    from mbt_lite.config import FrontEnd as FrontEnd
    from mbt_lite.config import MBTConfig as MBTConfig
    from mbt_lite.data import world as world
    from mbt_lite.evaluation import evaluate as evaluate
    from mbt_lite.features import read_clip as read_clip
    from mbt_lite.inference import Classifier as Classifier
    from mbt_lite.inference import Prediction as Prediction
    from mbt_lite.inference import load as load
    from mbt_lite.model import MBT as MBT
    from mbt_lite.model import Clip as Clip
    from mbt_lite.model import Output as Output
    from mbt_lite.train import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "BASE": "config",
    "WORLD": "config",
    "ClipConfig": "config",
    "FrontEnd": "config",
    "MBTConfig": "config",
    "MBT": "model",
    "Clip": "model",
    "Output": "model",
    "read_clip": "features",
    "Classifier": "inference",
    "Prediction": "inference",
    "load": "inference",
    "from_vit": "checkpoints",
    "evaluate": "evaluation",
    "fit": "train",
    "configs": "configs",  # from here on the modules themselves
    "explain": "explain",
    "world": "data.world",
}
__all__ = sorted(_HOMES)


if not TYPE_CHECKING:  # which would take any name for one that is here

    def __getattr__(name: str):
        if name not in _HOMES:
            raise AttributeError(f"mbt_lite has no {name!r}; it offers {', '.join(__all__)}.")
        module = importlib.import_module(f"mbt_lite.{_HOMES[name]}")
        value = module if name == _HOMES[name].split(".")[-1] else getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
