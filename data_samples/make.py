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
from studio import percussive, sustained
from studio.drawing import FPS

from mbt_lite import media, world

HERE = Path(__file__).resolve().parent

LIFE = {
    "speech": (sustained.speech, "a face says a sentence; its mouth opens with the loudness"),
    "ball": (percussive.ball, "a beach ball drops and bounces; every impact is heard"),
    "siren": (
        sustained.siren,
        "an ambulance drives by night; its two lamps alternate with its two tones",
    ),
    "bell": (percussive.bell, "a bell swings in a tower and is struck at both ends of its swing"),
    "storm": (
        sustained.storm,
        "rain on a window, two bolts of lightning, thunder 0.4 s after each",
    ),
    "guitar": (percussive.guitar, "a pick plucks six strings one after the other, up and down"),
}


NAMES = (*world.SAMPLES, *LIFE)


def world_scene(name: str) -> world.Scene:
    """The scene of the test split that `name` is."""
    return world.scene(world.SPLITS["test"], world.SAMPLES[name][0])


def world_clip(name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames uint8 [T, 256, 256, 3], wave [S] and its rate."""
    one = world_scene(name)
    times = np.arange(round(world.SECONDS * FPS)) / FPS
    return world.frames(one, times, 256), world.wave(one), world.RATE


def rows():
    """The lines of labels.csv."""
    for name, (_, description) in world.SAMPLES.items():
        yield f"{name}.mp4", "|".join(world_scene(name).names), "world", description
    for name, (_, description) in LIFE.items():
        yield f"{name}.mp4", "", "life", description


def make(name: str) -> None:
    """Write one clip."""
    if name == "speech" and not shutil.which("espeak-ng"):
        print("speech.mp4 stays as it is: apt-get install espeak-ng, then run this again.")
        return
    frames, sound, rate = world_clip(name) if name in world.SAMPLES else LIFE[name][0]()
    media.write(HERE / f"{name}.mp4", frames, FPS, sound, rate, crf=20)


def main(wanted: list[str]) -> None:
    if unknown := set(wanted) - {*NAMES}:
        sys.exit(f"no clip is called {', '.join(unknown)}; there are {', '.join(NAMES)}.")
    for name in wanted or NAMES:
        make(name)
    with open(HERE / "labels.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "labels", "kind", "description"))
        writer.writerows(rows())


if __name__ == "__main__":
    main(sys.argv[1:])
