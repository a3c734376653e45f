"""Clips put together from a folder of sounds and a folder of pictures, new ones in every epoch.

    everyday/train/sounds/dog/*.ogg       everyday/train/pictures/dog/*.jpg
    everyday/train/sounds/rain/*.ogg      everyday/train/pictures/chair/*.jpg
    everyday/train/sounds/other/*.ogg     everyday/train/pictures/other/*.jpg
    everyday/validation/...               everyday/test/...

A class may be heard, seen, or both. A clip has the labels of its sound and of its picture: the same
one, two, one, or none. A picture moves as if it was filmed by hand; a sound is heard as if by
another microphone, in another room, with others. Files in `other` have no label.

A file soft_labels.npz in `sounds` or `pictures` has what another model says of their files: names
`labels` [L], `files` [F] relative to it, and `scores` [F, L] from 0 to 1. They are auxiliary
classes, predicted in training only, by the stream that they are about.

T frames   S side of a frame, or samples   N spectrogram rows   M mel bins   C classes
"""

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from mbt_lite import media
from mbt_lite.config import ClipConfig
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import THUMBNAIL, Rows, Source, file_key, multi_hot, write_window
from mbt_lite.features import black, log_mel, silence

STREAMS = {"sounds": "spec", "pictures": "rgb"}
KINDS = tuple(STREAMS)
OTHER = "other"
OTHER_SHARE = 0.2  # of the files that clips begin with
SOFT_LABELS = "soft_labels.npz"
SPLITS = ("train", "validation", "test")
# What goes with a sound or picture of a class: the same class if there is one, another class, a
# file without label, or nothing. With a file without label: a class, another such file, nothing.
SAME, ANOTHER, UNLABELED = 0.45, 0.25, 0.2
LABELED, NEITHER = 0.25, 0.6
RESPONSE_POINTS = 6  # of a random frequency response


class _Pair(NamedTuple):
    """The files of a clip, and the classes that they show."""

    sounds: Path | None
    pictures: Path | None
    labels: frozenset[str]


def is_collage(path: Path) -> bool:
    """Whether a folder holds sounds and pictures, or splits with them."""
    return any(_files(path / part / kind) for part in ("", *SPLITS) for kind in KINDS)


def splits(path: Path) -> tuple[str, ...]:
    """The splits of a folder of sounds and pictures."""
    return tuple(split for split in SPLITS if any(_files(path / split / kind) for kind in KINDS))


class CollageSource(Source):
    """Clips of random sounds and pictures; in evaluation the same ones every time.

    ValueError where a folder has no sounds or pictures with a class.
    """

    new_each_epoch = True

    def __init__(self, path: Path, split: str | None = None):
        folder = path / split if split else path
        everywhere = [path / part for part in splits(path)] or [path]
        names = {name for part in everywhere for kind in KINDS for name in _files(part / kind)}
        self.classes = tuple(sorted(names - {OTHER}))
        self.files = {kind: _files(folder / kind) for kind in KINDS}
        self.soft = {kind: _SoftLabels(folder / kind) for kind in KINDS}
        soft = [name for kind in KINDS for name in self.soft[kind].labels]
        self.labels, self.num_auxiliary_classes = (*self.classes, *soft), len(soft)
        if not self.classes or not any(self.files.values()):
            raise ValueError(f"{folder} has no folders sounds/CLASS or pictures/CLASS with files.")

    def __len__(self) -> int:
        return sum(len(files) for kind in KINDS for files in self.files[kind].values())

    def name(self, index: int) -> str:
        pair = self._pair(index, _fixed(index))
        return " + ".join(path.stem for path in pair[:2] if path)

    def targets(self, index: int) -> np.ndarray:
        return self._multi_hot(self._pair(index, _fixed(index)))

    def key(self, index: int) -> str:
        pair = self._pair(index, _fixed(index))
        return file_key(pair.pictures, file_key(pair.sounds), index)

    def thumbnail(self, index: int) -> np.ndarray | None:
        picture = self._pair(index, _fixed(index)).pictures
        if picture is None:
            return None
        image = _picture(picture)
        scale = THUMBNAIL / min(image.size)
        return np.asarray(image.resize([round(side * scale) for side in image.size]))

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write a clip, in training another one each time; return the names of its files."""
        rng = rng if sampling.training else _fixed(index)
        pair, clip = self._pair(index, rng), sampling.clip
        out["labels"][:] = self._multi_hot(pair)
        rgb = rows = None
        if "rgb" in sampling.streams:
            rgb = black(clip, (clip.size, clip.size))
            rgb = filmed(_picture(pair.pictures), clip, rng) if pair.pictures else rgb
        if "spec" in sampling.streams:
            rows = self._spectrogram(pair, clip, rng)
        for view in range(sampling.views):
            write_window(out, view, rgb, rows)
        return " + ".join(str(path) for path in pair[:2] if path)

    def _spectrogram(self, pair: _Pair, clip: ClipConfig, rng: np.random.Generator) -> np.ndarray:
        if pair.sounds is None:
            return silence(clip)
        samples, rate = clip.spec_frames * clip.front_end.hop_samples, clip.front_end.rate
        wave = recorded(_excerpt(pair.sounds, samples, rng), rate, rng)
        others = self.files["sounds"].get(OTHER)
        if others and pair.labels and rng.random() < 0.4:  # something else in the background
            behind = _excerpt(_any(others, rng), samples, rng)
            wave = _mixed(wave, behind, rng.uniform(0, 20))
        level = 10 ** rng.uniform(-1.5, 0) / max(np.abs(wave).max(), 1e-6)
        return log_mel(wave * np.float32(level), clip.front_end)[: clip.spec_frames]

    def _multi_hot(self, pair: _Pair) -> np.ndarray:
        numbers = [self.classes.index(name) for name in pair.labels]
        soft = [self.soft[kind].scores(getattr(pair, kind)) for kind in KINDS]
        return np.concatenate([multi_hot(numbers, len(self.classes)), *soft])

    def _pair(self, index: int, rng: np.random.Generator) -> _Pair:
        """The files of a clip: of one kind, each class in turn; of the other one, at random."""
        kind, other = KINDS if index % 2 else KINDS[::-1]
        if not self.files[kind]:
            kind, other = other, kind
        name = self._class(kind, index // 2)
        partner = self._partner(name, self.files[other], rng)
        files = {kind: _any(self.files[kind][name], rng)}
        files[other] = _any(self.files[other][partner], rng) if partner else None
        return _Pair(**files, labels=frozenset({name, partner} - {OTHER, None}))

    def _class(self, kind: str, turn: int) -> str:
        """The class whose turn it is; every fifth turn files without label have."""
        names = [name for name in self.files[kind] if name != OTHER]
        every = round(1 / OTHER_SHARE)
        if OTHER in self.files[kind] and (turn % every == 0 or not names):
            return OTHER
        return names[turn % len(names)]

    def _partner(self, name: str, files: dict, rng: np.random.Generator) -> str | None:
        """The class of what goes with a file of this class; None: nothing."""
        draw = rng.random()
        classes = [other for other in files if other not in (name, OTHER)]
        unlabeled = OTHER if OTHER in files else None
        if name == OTHER:
            chances = [(LABELED, classes), (NEITHER, [unlabeled])]
        else:
            same = [name] if name in files else [unlabeled]
            chances = [(SAME, same), (ANOTHER, classes), (UNLABELED, [unlabeled])]
        for chance, choices in chances:
            if draw < chance and choices:
                return choices[rng.integers(len(choices))]
            draw -= chance
        return None


class _SoftLabels:
    """What another model says of the files of a folder; no labels where there is no such file."""

    def __init__(self, folder: Path):
        self.folder, self.labels, self.rows = folder, (), {}
        path = folder / SOFT_LABELS
        if path.exists():
            with np.load(path) as stored:
                self.labels = tuple(f"{STREAMS[folder.name]}: {name}" for name in stored["labels"])
                scores = stored["scores"].astype(np.float32)
                self.rows = dict(zip(map(str, stored["files"]), scores, strict=True))

    def scores(self, path: Path | None) -> np.ndarray:
        """The scores of a file [L]; zeros where there is no file."""
        nothing = np.zeros(len(self.labels), np.float32)
        if path is None:
            return nothing
        return self.rows.get(path.relative_to(self.folder).as_posix(), nothing)


def _fixed(index: int) -> np.random.Generator:
    """The draws of a clip that is evaluated."""
    return np.random.default_rng([index, 7])


def _files(folder: Path) -> dict[str, list[Path]]:
    """{class: its files} of the folders in a folder; hidden files are none."""
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("[!.]*/[!.]*")):
        files.setdefault(path.parent.name, []).append(path)
    return files


def _any(files: Sequence[Path], rng: np.random.Generator) -> Path:
    return files[rng.integers(len(files))]


# ---- pictures ----


@lru_cache(maxsize=2000)
def _picture(path: Path) -> Image.Image:
    """A picture in colors; ValueError if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is no picture that can be read ({error}).") from None


def filmed(image: Image.Image, clip: ClipConfig, rng: np.random.Generator) -> np.ndarray:
    """Frames uint8 [T, S, S, 3] as of a hand that films a picture: it pans, zooms and shakes.

    Light, contrast, sharpness, noise and compression differ, too; half of the clips are mirrored.
    """
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))
    boxes = _boxes(image.size, clip.frames, rng)
    size, sampling = (clip.size, clip.size), Image.Resampling.BILINEAR
    frames = np.stack([np.asarray(image.resize(size, sampling, box=tuple(box))) for box in boxes])
    light = rng.uniform(0.7, 1.3) * np.linspace(1, rng.uniform(0.9, 1.1), clip.frames)
    tint = rng.uniform(0.92, 1.08, 3)
    grain = np.float32(rng.uniform(0, 8)) * _noise(frames.shape, rng)
    lit = 127.5 + (frames - np.float32(127.5)) * np.float32(rng.uniform(0.7, 1.2))
    lit *= (light[:, None] * tint).astype(np.float32)[:, None, None]
    frames = (lit + grain).clip(0, 255).astype(np.uint8)
    return _compressed(frames, int(rng.uniform(25, 90))) if rng.random() < 0.5 else frames


def _boxes(size: tuple[int, int], count: int, rng: np.random.Generator) -> np.ndarray:
    """Squares [T, 4] (left, top, right, bottom) that move over a picture."""
    width, height = size
    ends = [_square(width, height, rng) for _ in range(2)]
    if rng.random() < 0.5:  # the hand is nearly still
        ends[1] = ends[0]
    path = np.linspace(*ends, count)  # center and half a side
    path[:, :2] += rng.uniform(0, 0.015) * min(size) * rng.standard_normal((count, 2))
    x, y, half = path.T
    x, y = x.clip(half, width - half), y.clip(half, height - half)
    return np.stack([x - half, y - half, x + half, y + half], axis=1)


def _square(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Center and half a side of a random square within a picture."""
    half = min(width, height) / 2 * rng.uniform(0.65, 1.0)
    return np.array([rng.uniform(half, width - half), rng.uniform(half, height - half), half])


def _compressed(frames: np.ndarray, quality: int) -> np.ndarray:
    """Frames as after compression, which JPEG stands for."""
    coded = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=quality)
        coded.append(np.asarray(Image.open(file)))
    return np.stack(coded)


# ---- sounds ----


@lru_cache(maxsize=1000)
def _wave(path: Path) -> np.ndarray:
    """A sound at 16 kHz; ValueError if the file has none."""
    wave = media.read(path, 0.0, 60.0, only="audio").wave
    if not len(wave):
        raise ValueError(f"{path} has no audio.")
    return wave.astype(np.float16)


def _excerpt(path: Path, samples: int, rng: np.random.Generator) -> np.ndarray:
    """A random window of a sound; a short one is repeated, or has silence around it."""
    wave = _wave(path).astype(np.float32)
    if len(wave) < samples and rng.random() < 0.5:
        room = samples - len(wave)
        before = int(rng.integers(room + 1))
        return np.pad(wave, (before, room - before))
    first = int(rng.integers(max(len(wave) - samples, 0) + 1))
    return np.take(wave, first + np.arange(samples), mode="wrap")


def recorded(wave: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """A sound [S] as of another microphone: other frequency response, often a room, and noise."""
    from scipy import fft  # slow to import

    samples = len(wave)
    size = fft.next_fast_len(2 * samples, real=True)  # the second half takes what resounds
    spectrum = fft.rfft(wave, size)
    places, points = np.linspace(0, 1, len(spectrum)), np.linspace(0, 1, RESPONSE_POINTS)
    decibels = np.interp(places**0.5, points, rng.uniform(-8, 8, RESPONSE_POINTS))
    if rng.random() < 0.3:  # a codec or a telephone
        decibels -= 60 * (places > rng.uniform(0.3, 1))
    spectrum *= np.exp(decibels.astype(np.float32) * np.float32(np.log(10) / 20))
    if rng.random() < 0.4:
        decay = np.exp(-np.arange(samples) / (rate * rng.uniform(0.03, 0.25)))
        room = 0.05 * rng.uniform(0, 1) * decay.astype(np.float32) * _noise(samples, rng)
        room[0] = 1
        spectrum *= fft.rfft(room, size)
    heard = fft.irfft(spectrum, size)[:samples]
    level = 10 ** rng.uniform(-4, -1.5) * np.abs(heard).max()
    return heard + np.float32(level) * _noise(samples, rng)


def _noise(shape, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def _mixed(wave: np.ndarray, behind: np.ndarray, decibels: float) -> np.ndarray:
    """A sound before another one that is weaker by so many decibels."""
    level = np.sqrt((wave**2).mean() / max((behind**2).mean(), 1e-12)) * 10 ** (-decibels / 20)
    return wave + np.float32(level) * behind
