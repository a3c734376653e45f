"""Render micro-world clips as video files in one folder per class.

Each clip shows and sounds as rich as any scene; of the classes asked for exactly one is true.
"""

from collections.abc import Sequence
from pathlib import Path

from mbt_lite.data import world
from mbt_lite.data.world import Scene

PATIENCE = 5000  # scenes in a row without a clip of a class, after which there are taken to be none


def render(classes: Sequence[str], count: int, split: str, folder: Path, size: int = 160) -> Path:
    """The folder, with `count` clips of each class in a folder of its own.

    Such a folder is named like the class, with _ for a space, and holds what `world.render` writes:
    mp4 files, labels.csv with all that is true of them, key.json. ValueError where the classes
    cannot be told apart so, or the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; name a new folder, its folders are the classes.")
    for name, scenes in cast(classes, count, world.SPLITS[split]).items():
        world.render(scenes, folder / name.replace(" ", "_"), size)
    return folder


def cast(classes: Sequence[str], count: int, seed: int) -> dict[str, list[Scene]]:
    """Per class the first `count` scenes of the world `seed` in which it alone is true."""
    _refuse_unknown(classes)
    found: dict[str, list[Scene]] = {name: [] for name in classes}
    index, last = 0, dict.fromkeys(classes, 0)
    while missing := [name for name in classes if len(found[name]) < count]:
        scene = world.scene(seed, index)
        true = [name for name in classes if name in scene.names]
        index += 1
        if len(true) == 1:
            last[true[0]] = index
            if true[0] in missing:
                found[true[0]].append(scene)
        _refuse_inseparable(missing, index, last)
    return found


def _refuse_unknown(classes: Sequence[str]) -> None:
    unknown = [name for name in classes if name not in world.LABELS]
    if unknown or len(set(classes)) < max(len(classes), 2):
        said = f"no class {unknown[0]!r}" if unknown else "two or more different classes are needed"
        raise ValueError(f"{said}; the micro-world has {', '.join(world.LABELS)}.")


def _refuse_inseparable(missing: Sequence[str], index: int, last: dict[str, int]) -> None:
    for name in missing:
        if index - last[name] > PATIENCE:
            raise ValueError(
                f"in none of {PATIENCE} scenes {name!r} is true without the other classes; leave "
                "some of them out."
            )
