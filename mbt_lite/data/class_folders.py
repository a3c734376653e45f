"""Render micro-world clips as video files in one folder per class.

The scenes are as rich as any other; of the given classes exactly one is true of each clip.
"""

from collections.abc import Sequence
from pathlib import Path

from mbt_lite.data import world
from mbt_lite.data.world import Scene

MAX_SCENES = 5000  # in a row without a clip of a class, after which there is taken to be none


def render(classes: Sequence[str], count: int, split: str, folder: Path, size: int = 160) -> Path:
    """Write `count` clips of each class into a subfolder of its own; the folder.

    A subfolder is named like the class, with _ for a space, and holds what `world.render` writes:
    mp4 files, labels.csv with all their labels, key.json. ValueError if the classes cannot be
    separated in this way, or the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; name a new folder, its folders are the classes.")
    for name, scenes in cast(classes, count, world.SPLITS[split]).items():
        world.render(scenes, folder / name.replace(" ", "_"), size)
    return folder


def cast(classes: Sequence[str], count: int, seed: int) -> dict[str, list[Scene]]:
    """{class: the first `count` scenes of the world `seed` in which it is the only true class}."""
    _refuse_unknown(classes)
    scenes: dict[str, list[Scene]] = {name: [] for name in classes}
    index, last = 0, dict.fromkeys(classes, 0)  # number of the last scene of each class
    while missing := [name for name in classes if len(scenes[name]) < count]:
        scene = world.scene(seed, index)
        true = [name for name in classes if name in scene.names]
        index += 1
        if len(true) == 1:
            last[true[0]] = index
            if true[0] in missing:
                scenes[true[0]].append(scene)
        for name in missing:
            if index - last[name] > MAX_SCENES:
                raise ValueError(
                    f"in none of {MAX_SCENES} scenes {name!r} is true without the other classes; "
                    "leave some of them out."
                )
    return scenes


def _refuse_unknown(classes: Sequence[str]) -> None:
    unknown = [name for name in classes if name not in world.LABELS]
    if unknown or len(set(classes)) < max(len(classes), 2):
        problem = (
            f"no class {unknown[0]!r}" if unknown else "two or more different classes are needed"
        )
        raise ValueError(f"{problem}; the micro-world has {', '.join(world.LABELS)}.")
