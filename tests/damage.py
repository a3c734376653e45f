"""Clips in several containers, and damaged variants of them, the same for the same seed."""

import random
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CODECS = {  # suffix: video, its pixels, and audio
    "mp4": ("libx264", "yuv420p", "aac"),
    "avi": ("mpeg4", "yuv420p", "mp2"),
    "mkv": ("mpeg4", "yuv420p", "flac"),
    "webm": ("libvpx", "yuv420p", "libopus"),
    "ogg": (None, None, "libopus"),
    "wav": (None, None, "pcm_s16le"),
    "gif": ("gif", "rgb8", None),
}
EXTREMES = (0, 1, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def film(path, seconds: float = 1.5, size=(48, 64), fps: int = 10, codecs=None) -> Path:
    """A file in the container of its suffix: moving noise and a hum, as far as it holds both."""
    picture, pixels, sound = codecs or CODECS[Path(path).suffix[1:]]
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream(picture, rate=fps)
            (video.height, video.width), video.pix_fmt = size, pixels
        if sound:
            audio = container.add_stream(sound, rate=48_000, layout="mono")
        if picture:
            base = random.integers(0, 256, (*size, 3), np.uint8)
            for i in range(round(seconds * fps)):
                frame = av.VideoFrame.from_ndarray(np.roll(base, i, axis=1), "rgb24")
                container.mux(video.encode(frame.reformat(format=pixels)))
            container.mux(video.encode(None))
        if sound:
            times = np.arange(round(seconds * 48_000)) / 48_000
            wave = (np.sin(2 * np.pi * 440 * times) / 4).astype(np.float32)[None]
            hum = av.AudioFrame.from_ndarray(wave, "flt", "mono")
            hum.sample_rate, hum.pts, hum.time_base = 48_000, 0, Fraction(1, 48_000)
            codec = audio.codec_context
            fit = av.AudioResampler(codec.format, "mono", 48_000, codec.frame_size)
            for frame in [*fit.resample(hum), *fit.resample(None)]:
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return Path(path)


def films(folder: Path) -> dict[str, bytes]:
    """Suffix → a whole file of each container."""
    return {suffix: film(folder / f"whole.{suffix}").read_bytes() for suffix in CODECS}


# ---- damage ----


def truncated(data: bytearray, chance: random.Random, others: list[bytes]) -> bytes:
    return data[: chance.randrange(1, len(data))]


def flipped(data: bytearray, chance: random.Random, others: list[bytes]) -> bytes:
    for _ in range(chance.choice((1, 10, 100))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def header_replaced(data: bytearray, chance: random.Random, others: list[bytes]) -> bytes:
    for _ in range(chance.choice((1, 4, 16))):
        data[chance.randrange(min(len(data), 1024))] = chance.randrange(256)
    return data


def resized(data: bytearray, chance: random.Random, others: list[bytes]) -> bytes:
    """Numbers of four bytes set to extremes: in front of the name of a box, if there is one."""
    names = [i for i in range(4, len(data) - 4) if data[i : i + 4].isalpha()]
    for _ in range(chance.choice((1, 3))):
        at = chance.choice(names) - 4 if names else chance.randrange(len(data) - 4)
        data[at : at + 4] = chance.choice(EXTREMES).to_bytes(4, chance.choice(("big", "little")))
    return data


def zeroed(data: bytearray, chance: random.Random, others: list[bytes]) -> bytes:
    at, length = chance.randrange(len(data)), chance.randrange(1, len(data) // 2)
    data[at : at + length] = bytes(len(data[at : at + length]))
    return data


def joined(data: bytearray, chance: random.Random, others: list[bytes]) -> bytes:
    other = chance.choice(others)
    return data[: chance.randrange(1, len(data) + 1)] + other[chance.randrange(len(other)) :]


DAMAGES = (truncated, flipped, header_replaced, resized, zeroed, joined)


def variants(folder: Path, count: int, seed: int = 0) -> Iterator[tuple[str, Path]]:
    """`count` pairs: the kind of damage, and a file with it; each container has all kinds."""
    chance, whole = random.Random(seed), films(folder)
    for i in range(count):
        suffix = list(whole)[i % len(whole)]
        damage = DAMAGES[i // len(whole) % len(DAMAGES)]
        path = folder / f"variant_{i:03d}.{suffix}"
        path.write_bytes(damage(bytearray(whole[suffix]), chance, list(whole.values())))
        yield damage.__name__, path
