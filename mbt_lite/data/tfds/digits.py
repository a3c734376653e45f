"""Read the published handwritten and spoken digits as pairs of an image and a second of audio.

S samples of a recording   P images of a file, each H x W
"""

import gzip
import io
import re
import tarfile
import wave
import zlib
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

RATE = 8_000  # Hz, of every recording
SECONDS = 1.0  # of audio in a pair
TEST = range(0, 5)  # the recordings of each speaker and digit that the authors keep for the test
VALIDATION = range(5, 10)
LABELS = tuple("0123456789")

_NAME = re.compile(r"(\d)_([^_/]+)_(\d+)\.wav")
_IMAGES, _LABELS = 2051, 2049  # the first four bytes of an idx file


class Recording(NamedTuple):
    """One spoken digit."""

    digit: int
    speaker: str
    index: int  # of this speaker and digit
    wave: np.ndarray  # int16 [S]

    @property
    def name(self) -> str:
        return f"{self.digit}_{self.speaker}_{self.index}"

    @property
    def split(self) -> str:
        if self.index in TEST:
            return "test"
        return "validation" if self.index in VALIDATION else "train"


def mnist(images, labels) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [P, H, W], white on black, and labels uint8 [P] of two gzipped idx files."""
    seen, written = _idx(images, _IMAGES, 3), _idx(labels, _LABELS, 1)
    if len(seen) != len(written):
        raise ValueError(f"{images} has {len(seen)} images, {labels} {len(written)} labels.")
    return seen, written


def _idx(path, magic: int, axes: int) -> np.ndarray:
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}); fetch it again.") from None
    head = np.frombuffer(content[: 4 * (1 + axes)], ">u4")
    if len(head) <= axes or head[0] != magic:
        raise ValueError(f"{path} is no idx file of {axes} axes, as MNIST's files are.")
    shape, body = head[1:].astype(int), np.frombuffer(content, np.uint8, offset=4 * (1 + axes))
    if len(body) != np.prod(shape):
        raise ValueError(f"{path} says it holds {np.prod(shape)} bytes, and holds {len(body)}.")
    return body.reshape(shape)


def recordings(path) -> list[Recording]:
    """Every recording in an archive (.tar.gz) of the Free Spoken Digit Dataset, by name."""
    found = []
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                place = PurePosixPath(member.name)
                name = _NAME.fullmatch(place.name)
                if name and member.isfile() and place.parent.name == "recordings":
                    content = archive.extractfile(member).read()
                    samples = _samples(content, f"{path}: {member.name}")
                    found.append(Recording(int(name[1]), name[2], int(name[3]), samples))
    except (EOFError, tarfile.TarError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is no whole .tar.gz archive ({error}); fetch it again.") from None
    if not found:
        raise ValueError(f"{path} holds no recordings/DIGIT_SPEAKER_INDEX.wav.")
    return sorted(found, key=lambda recording: recording[:3])


def _samples(content: bytes, where: str) -> np.ndarray:
    """int16 [S] of a WAV file."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            form = (file.getnchannels(), file.getsampwidth(), file.getframerate())
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    except (wave.Error, EOFError, ValueError) as error:
        raise ValueError(f"{where} is no WAV file that can be read ({error}).") from None
    if form != (1, 2, RATE) or not len(samples):
        raise ValueError(
            f"{where} holds {len(samples)} samples of {form[0]} channel(s), {8 * form[1]} bit and "
            f"{form[2]} Hz; 1 channel, 16 bit and {RATE} Hz are expected."
        )
    return samples


def pairs(
    spoken: np.ndarray, written: np.ndarray, each: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """(recording, video) of the same digit, `each` per recording; no video is taken twice.

    Both are given as arrays of digits; a pair is two places in them.
    """
    made = []
    for digit in range(len(LABELS)):
        heard, seen = np.flatnonzero(spoken == digit), np.flatnonzero(written == digit)
        if len(seen) < len(heard) * each:
            raise ValueError(
                f"{len(heard)} recordings of {digit} with {each} images each need "
                f"{len(heard) * each} images, and there are {len(seen)}; ask for fewer pairs."
            )
        chosen = rng.permutation(seen)[: len(heard) * each]
        made += zip(np.repeat(heard, each).tolist(), chosen.tolist(), strict=True)
    return made


def noisy_image(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 of the same shape: white noise of this deviation (0..1 scale) added, then clipped."""
    light = image / 255 + deviation * rng.standard_normal(image.shape)
    return np.round(255 * light.clip(0, 1)).astype(np.uint8)


def noisy_audio(spoken: np.ndarray, snr: float | None, rng: np.random.Generator) -> np.ndarray:
    """int16 [8000], the middle second of a recording in white noise, its peak at full scale.

    `snr` is in dB and compares the power of the voice, while it speaks, with that of the noise,
    which fills the whole second, so that the length of the recording does not show. With None
    there is no noise.
    """
    samples = round(SECONDS * RATE)
    cut = max(len(spoken) - samples, 0) // 2
    voice = spoken[cut : cut + samples].astype(np.float64)
    before = (samples - len(voice)) // 2
    level = 0.0 if snr is None else np.sqrt(np.mean(voice**2)) * 10 ** (-snr / 20)
    mixed = level * rng.standard_normal(samples)
    mixed[before : before + len(voice)] += voice
    return np.round(mixed * (32767 / max(np.abs(mixed).max(), 1))).astype(np.int16)
