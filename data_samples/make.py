"""Make the sample clips and labels.csv: python data_samples/make.py [NAME ...]

Six scenes of the micro-world, and six that are more like life, drawn and synthesised in `studio`.
All of them take two minutes, in an environment where mbt_lite is installed. The same NumPy and PyAV
give the same bytes; speech.mp4 also needs the program espeak-ng.
"""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
from studio import lasting, struck
from studio.easel import FPS

from mbt_lite import media, world

HERE = Path(__file__).resolve().parent

# All that is heard in a scene, and with it what is seen too, but not how the shapes move.
WORLD = {
    "circle_sings": (
        {"circle sings", "pitch dips"},
        "a circle dips, and a tone with it; a cross goes its own way",
    ),
    "ring_sings_with_bell": (
        {"ring sings", "pitch arcs", "bell heard"},
        "a ring goes up and down, and a tone with it; a bell is heard, but not seen",
    ),
    "ladder_sings_with_siren": (
        {"ladder sings", "pitch rises", "siren"},
        "a ladder rises, and a tone with it; a lamp blinks in step with a siren",
    ),
    "cross_sings_in_rain": (
        {"cross sings", "pitch falls", "rain"},
        "a cross falls, and a tone with it, in rain that is seen and heard",
    ),
    "nobody_sings": ({"pitch rises"}, "a ring and a circle move; the tone goes with neither"),
    "thunder_and_knocking": (
        {"thunder", "knocking heard"},
        "two shapes move without a tone; lightning with thunder, and knocking out of sight",
    ),
}


LIFE = {
    "speech": (lasting.speech, "a face says a sentence; its mouth opens with the loudness"),
    "ball": (struck.ball, "a beach ball drops and bounces; every impact is heard"),
    "siren": (
        lasting.siren,
        "an ambulance drives by night; its two lamps alternate with its two tones",
    ),
    "bell": (struck.bell, "a bell swings in a tower and is struck at both ends of its swing"),
    "storm": (lasting.storm, "rain on a window, two bolts of lightning, thunder 0.4 s after each"),
    "guitar": (struck.guitar, "a pick plucks six strings one after the other, up and down"),
}


def world_scene(name: str) -> world.Scene:
    """The first scene of the test split that sounds as WORLD says of `name`."""
    heard, _ = WORLD[name]
    scenes = (world.scene(world.SPLITS["test"], index) for index in range(10_000))
    return next(one for one in scenes if set(one.names[len(one.things) :]) == heard)


def world_clip(name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames uint8 [T, 256, 256, 3], wave [S] and its rate."""
    one = world_scene(name)
    times = np.arange(round(world.SECONDS * FPS)) / FPS
    return world.frames(one, times, 256), world.wave(one), world.RATE


def rows():
    """The lines of labels.csv."""
    for name, (_, description) in WORLD.items():
        yield f"{name}.mp4", "|".join(world_scene(name).names), "world", description
    for name, (_, description) in LIFE.items():
        yield f"{name}.mp4", "", "life", description


def make(name: str) -> None:
    """Write one clip."""
    if name == "speech" and not shutil.which("espeak-ng"):
        print("speech.mp4 stays as it is: apt-get install espeak-ng, then run this again.")
        return
    frames, sound, rate = world_clip(name) if name in WORLD else LIFE[name][0]()
    media.write(HERE / f"{name}.mp4", frames, FPS, sound, rate, crf=20)


def main(wanted: list[str]) -> None:
    if unknown := set(wanted) - {*WORLD, *LIFE}:
        sys.exit(f"no clip is called {', '.join(unknown)}; there are {', '.join((*WORLD, *LIFE))}.")
    for name in wanted or (*WORLD, *LIFE):
        make(name)
    with open(HERE / "labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "labels", "kind", "description"))
        writer.writerows(rows())


if __name__ == "__main__":
    main(sys.argv[1:])
