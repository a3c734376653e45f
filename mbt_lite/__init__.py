"""mbt_lite: the Multimodal Bottleneck Transformer in JAX, small enough to read.

    import mbt_lite as mbt

    clf = mbt.load()
    clf.predict("clip.mp4").top(5)

The names below are fetched when they are first used, so that `import mbt_lite` itself stays light.
"""

import importlib

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
    "from_vit": "vit",
    "evaluate": "evaluation",
    "fit": "train",
    "configs": "configs",  # the packages themselves
    "explain": "explain",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"mbt_lite has no {name!r}; it offers {', '.join(__all__)}.")
    module = importlib.import_module(f"mbt_lite.{_HOMES[name]}")
    value = module if name == _HOMES[name] else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
