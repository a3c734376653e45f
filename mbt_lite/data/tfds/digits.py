"""Read the published handwritten and spoken digits as pairs of an image and a second of audio.

S samples of a recording   P images of a file
"""

import gzip
import hashlib
import os
import re
import tarfile
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

RATE = 8_000  # Hz, of every recording
SECONDS = 1.0  # of audio in a pair
TEST = range(0, 5)  # the recordings of each speaker and digit that the authors keep for the test
VALIDATION = range(5, 10)
LABELS = tuple("0123456789")

_NAME = re.compile(r".*/recordings/(\d)_([^_/]+)_(\d+)\.wav")


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


def find_idx(folder: Path, name: str, sha256: str) -> bytes | None:
    """The content of an idx file in a folder: as it is, gzipped, or in a tar archive.

    None if there is no file of this name whose content has the checksum.
    """
    for content in _contents(folder, name):
        if hashlib.sha256(content).hexdigest() == sha256:
            return content
    return None


def _contents(folder: Path, name: str) -> Iterator[bytes]:
    """What files of this name hold, with or without .gz, in a folder or its archives."""
    names = name, f"{name}.gz"
    for path in (folder / each for each in names):
        if path.is_file():
            yield _unzipped(path.read_bytes())
    for path in sorted(path for path in folder.glob("*.t*") if tarfile.is_tarfile(path)):
        with tarfile.open(path) as archive:
            for member in archive:
                if Path(member.name).name in names and member.isfile():
                    yield _unzipped(archive.extractfile(member).read())


def _unzipped(content: bytes) -> bytes:
    try:
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (OSError, EOFError):
        return b""  # damaged: no checksum fits


def mnist(images: bytes, labels: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [P, 28, 28], white on black, and labels uint8 [P] of two idx files.

    Their checksums were compared before, so that they need no other checks.
    """
    pixels = np.frombuffer(images, np.uint8, offset=16)
    return pixels.reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def recordings(path: os.PathLike) -> list[Recording]:
    """All recordings in the archive (.tar.gz) of the Free Spoken Digit Dataset, sorted by name."""
    result = []
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if match := _NAME.fullmatch(member.name):
                with wave.open(archive.extractfile(member)) as file:
                    samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
                result.append(Recording(int(match[1]), match[2], int(match[3]), samples))
    return sorted(result, key=lambda recording: recording[:3])


def pairs(
    spoken: np.ndarray, written: np.ndarray, each: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """(recording, image) of the same digit, `each` per recording; no image is used twice.

    `spoken` and `written` are arrays of digits; a pair is an index into each.
    """
    result = []
    for digit in range(len(LABELS)):
        recordings, images = np.flatnonzero(spoken == digit), np.flatnonzero(written == digit)
        count = len(recordings) * each
        if len(images) < count:
            raise ValueError(
                f"{len(recordings)} recordings of {digit} with {each} images each need {count} "
                f"images, and there are {len(images)}; ask for fewer pairs."
            )
        chosen = rng.permutation(images)[:count]
        result += zip(np.repeat(recordings, each).tolist(), chosen.tolist(), strict=True)
    return result


def noisy_image(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 of the same shape: white noise of this deviation (0..1 scale) added, then clipped."""
    noisy = image / 255 + deviation * rng.standard_normal(image.shape)
    return np.round(255 * noisy.clip(0, 1)).astype(np.uint8)


def noisy_audio(spoken: np.ndarray, snr: float | None, rng: np.random.Generator) -> np.ndarray:
    """int16 [8000], the middle second of a recording in white noise, its peak at full scale.

    `snr` (dB) is the power of the voice, while it speaks, over that of the noise, which fills the
    whole second so that the length of the recording is hidden. None: no noise.
    """
    samples = round(SECONDS * RATE)
    cut = max(len(spoken) - samples, 0) // 2
    voice = spoken[cut : cut + samples].astype(np.float64)
    before = (samples - len(voice)) // 2
    level = 0.0 if snr is None else np.sqrt(np.mean(voice**2)) * 10 ** (-snr / 20)
    mixed = level * rng.standard_normal(samples)
    mixed[before : before + len(voice)] += voice
    return np.round(mixed * (32767 / max(np.abs(mixed).max(), 1))).astype(np.int16)
