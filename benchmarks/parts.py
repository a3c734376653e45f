"""Benchmark audio, files, predictions and start-up, each beside an alternative.

Every case is a function of a `Place` that returns a row, or the reason why there is none.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import fft

from benchmarks import others, throughput
from benchmarks.timing import (
    Program,
    compare,
    row,
    seconds,
)
from mbt_lite import features, media
from mbt_lite.config import WORLD_CLIP, FrontEnd
from mbt_lite.data import world
from mbt_lite.inference import load

ROUNDS = 7
STARTS = 3  # rounds of cases that start a Python
CLIP = throughput.CLIP  # 32 frames, every second one, and 8 s of audio
HD = 720, 1280  # pixels, height and width


@dataclass(frozen=True)
class Place:
    """A folder for files, and a Python that may have more libraries."""

    folder: Path
    python: str

    @cached_property
    def film(self) -> Path:
        """10 s at 25 frames a second, 720 x 1280, with audio."""
        path = self.folder / "film.mp4"
        throughput.write_film(path, np.random.default_rng(0), HD)
        return path

    @cached_property
    def clip(self) -> Path:
        """A clip of the micro-world."""
        world.render([world.scene(1, 0)], self.folder / "world")
        return next((self.folder / "world").glob("*.mp4"))


TITLES = {  # of the functions of others.py
    "pyav": "PyAV, everything decoded",
    "opencv": "OpenCV, the video only",
    "decord": "decord",
    "torchcodec": "TorchCodec",
    "torchaudio": "torchaudio, in one batch",
}


def beside(place: Place, ours: Callable, name: str, **arguments) -> dict | str:
    """Compare `ours` with a function of others.py, in the other Python or in this one."""
    reasons = []
    for python in dict.fromkeys((place.python, sys.executable)):
        try:
            with Program(python, others.__file__, name, json.dumps(arguments)) as program:
                return compare(ours, program, TITLES[name], ROUNDS)
        except ValueError as error:
            reasons.append(str(error))
    return f"{reasons[0]}; name a Python that has {name} with --python"


# ---- audio ----


def log_mel_beside_librosa(place: Place, jitted: bool = False) -> dict | str:
    """Log-mels of 32 waves of 8 s, one by one or jitted, beside librosa in one batch."""
    if importlib.util.find_spec("librosa") is None:
        return "librosa is not installed"
    front, waves = WORLD_CLIP.front_end, _waves()

    def one_by_one():
        return [features.log_mel(wave, front) for wave in waves]

    def together():
        return features.log_mels(waves, front)

    ours = together if jitted else one_by_one
    result = compare(ours, lambda: librosa_log_mels(waves, front), "librosa, in one batch", ROUNDS)
    result |= {"bound": _bound(waves, front)}
    return result if jitted else result | {"parts": _parts(waves, front)}


def log_mel_beside_torchaudio(place: Place) -> dict | str:
    """The same beside torchaudio in one batch."""
    front, waves = WORLD_CLIP.front_end, _waves()
    sizes = {"waves": 32, "seconds": 8, "rate": front.rate, "fft": front.fft, "mels": front.mels}
    sizes |= {"window": front.window_samples, "hop": front.hop_samples}
    sizes |= {"low": front.low, "high": front.high, "offset": front.offset}

    def ours():
        return [features.log_mel(wave, front) for wave in waves]

    return beside(place, ours, "torchaudio", **sizes)


def _waves() -> np.ndarray:
    front = WORLD_CLIP.front_end
    return np.random.default_rng(0).normal(0, 0.1, (32, 8 * front.rate)).astype(np.float32)


def _bound(waves: np.ndarray, front: FrontEnd) -> float:
    """Lower bound in s: the FFT alone, on blocks in the cache, and one copy of input and output."""
    rows = len(waves) * waves.shape[-1] // front.hop_samples
    block = np.zeros((features.BLOCK, front.fft), np.float32)
    out = np.zeros((rows, front.mels), np.float32)

    def least():
        for _ in range(0, rows, features.BLOCK):
            fft.rfft(block)
        waves.copy(), out.copy()

    return min(seconds(least) for _ in range(ROUNDS))


def _parts(waves: np.ndarray, front: FrontEnd) -> dict[str, float]:
    """Seconds of each step of `features.log_mel` for all waves, measured separately."""
    frames = np.ones((features.BLOCK, front.window_samples), np.float32)
    spectrum = fft.rfft(frames, front.fft)
    energy = np.square(spectrum.real)
    filters = features.filter_groups(front)
    steps = {
        "window": lambda: frames * features.window_fn(front),
        "transforms": lambda: fft.rfft(frames, front.fft),
        "squares": lambda: np.square(spectrum.real) + np.square(spectrum.imag),
        "roots": lambda: np.sqrt(energy),
        "mel filters": lambda: [energy[:, bins] @ group for bins, group in filters],
        "logarithms": lambda: np.log(energy[:, : front.mels] + np.float32(front.offset)),
    }
    blocks = len(waves) * waves.shape[-1] // front.hop_samples // features.BLOCK

    def median(step) -> float:
        return float(np.median([seconds(step) for _ in range(10 * ROUNDS)]))

    return {name: blocks * median(step) for name, step in steps.items()}


def librosa_log_mels(waves: np.ndarray, front: FrontEnd) -> np.ndarray:
    """[..., N, M] of waves [..., S]: librosa's `features.log_mels`, without pre-emphasis."""
    import librosa

    hop, rows = front.hop_samples, -(-waves.shape[-1] // front.hop_samples)
    # librosa centers a short window in a long FFT, so the audio has to begin that much later.
    lead = front.left_pad + (front.fft - front.window_samples) // 2
    missing = max((rows - 1) * hop + front.fft - waves.shape[-1] - lead, 0)
    energy = librosa.feature.melspectrogram(
        y=np.pad(waves, [(0, 0)] * (waves.ndim - 1) + [(lead, missing)]),
        sr=front.rate,
        n_fft=front.fft,
        hop_length=hop,
        win_length=front.window_samples,
        window=front.window_fn,
        center=False,
        power=front.power,
        n_mels=front.mels,
        fmin=front.low,
        fmax=front.high,
        htk=True,
        norm=None,
    )
    return np.log(energy.swapaxes(-1, -2)[..., :rows, :] + np.float32(front.offset))


# ---- files ----


def reading_beside(place: Place, name: str) -> dict | str:
    """32 frames at stride 2, short side 224, and 8 s of audio of a 10 s film in 720p."""
    length = throughput.SECONDS
    start = (length - CLIP.audio_seconds) / 2
    first = round(25 * (length - CLIP.video_seconds) / 2)
    numbers = list(range(first, first + CLIP.frames * CLIP.stride, CLIP.stride))
    instants = (np.array(numbers) + 0.5) / 25 - start
    side = {"short_side": 224, "at": lambda length: instants}
    film = place.film

    def ours():
        return media.read(film, start, CLIP.audio_seconds, **side)

    frames = ours().frames
    size = frames.shape[2], frames.shape[1]
    clip = {"file": str(film), "numbers": numbers, "size": size}
    return beside(place, ours, name, **clip, start=start, seconds=CLIP.audio_seconds)


def records_beside_tf_data(place: Place) -> dict | str:
    """Full-size training clips out of records, seconds of processor time."""
    missing = throughput.lacks_tensorflow(place.python)
    if missing:
        return missing
    speeds = throughput.measure(32, place.python)["rounds"]
    return row(1 / np.array(speeds["records"]), 1 / np.array(speeds["tf.data"]), "tf.data")


def world_clips(place: Place) -> dict:
    """16 micro-world clips rendered on the fly, beside the same clips read from mp4 files."""
    folder = place.folder / "sixteen"
    world.render([world.scene(0, i) for i in range(16)], folder)
    files = [folder / f"world_{i:04d}.mp4" for i in range(16)]
    return compare(
        lambda: [world.sample(world.scene(0, i), WORLD_CLIP)["spec"] for i in range(16)],
        lambda: [features.read_views(file, WORLD_CLIP)[0].spec for file in files],
        "read from mp4",
        ROUNDS,
    )


# ---- answers ----


def answers_in_a_batch(place: Place) -> dict:
    """32 clips through the embedded model in one batch, beside one by one."""
    classifier = load("world-tiny")
    samples = [world.sample(world.scene(1, i), classifier.clip_config) for i in range(32)]
    rgb, spec = (np.stack([sample[key] for sample in samples]) for key in ("rgb", "spec"))
    clip = features.normalize(rgb, spec, classifier.clip_config.front_end)
    singles = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i : i + 1]), clip) for i in range(32)]
    return compare(
        lambda: classifier.logits(clip),
        lambda: [classifier.logits(single) for single in singles],
        "one by one",
        ROUNDS,
    )


def answer_of_the_demo(place: Place) -> dict | str:
    """A clip in the demo, five windows read in the sandbox's process, with all their answers."""
    if importlib.util.find_spec("gradio") is None:
        return "gradio is not installed"
    from mbt_lite.demo.engine import Engine

    engine = Engine("world-tiny")
    engine.compile()
    return compare(
        lambda: engine.ask(place.clip),
        lambda: engine.classifier.predict(place.clip, views=5),
        "`predict` with as many windows, unguarded",
        ROUNDS,
    )


# ---- starts ----


def bare_import(place: Place) -> dict:
    """A fresh Python with the package, beside one with JAX."""
    ours, other = (partial(_python, "-c", f"import {name}") for name in ("mbt_lite", "jax"))
    return compare(ours, other, "with jax imported", STARTS)


def prediction(place: Place, cold: bool) -> dict:
    """`mbt-lite predict` of one file, beside the imports alone.

    `cold`: without a compilation cache from the run before.
    """

    def ours():
        cache = tempfile.mkdtemp(dir=place.folder) if cold else place.folder / "cache"
        _python("-m", "mbt_lite", "predict", str(place.clip), MBT_LITE_CACHE=str(cache))

    imports = partial(_python, "-c", "import jax, flax.linen, av")
    return compare(ours, imports, "with jax, flax and av imported", STARTS)


def _python(*arguments: str, **environment: str) -> None:
    environment = os.environ | environment
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, capture_output=True, env=environment)


CASES = {
    "log-mel, 32 x 8 s": log_mel_beside_librosa,
    "log-mel, 32 x 8 s, jitted": partial(log_mel_beside_librosa, jitted=True),
    "log-mel, 32 x 8 s, torchaudio": log_mel_beside_torchaudio,
}
CASES |= {
    f"32 frames and 8 s of a 720p film, {name}": partial(reading_beside, name=name)
    for name in ("pyav", "opencv", "decord", "torchcodec")
}
CASES |= {
    "a training clip from records, processor time": records_beside_tf_data,
    "16 world clips with features": world_clips,
    "32 clips answered in one batch": answers_in_a_batch,
    "a clip asked in the demo": answer_of_the_demo,
    "a fresh Python with mbt_lite imported": bare_import,
    "mbt-lite predict, one clip, cold": partial(prediction, cold=True),
    "mbt-lite predict, one clip, again": partial(prediction, cold=False),
}
