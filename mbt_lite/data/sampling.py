"""Choose the frames and the audio of a clip in training, validation and test.

Two ways to pair audio with video. "synchronised": both windows lie around the same instant, which
is drawn in training, the clip's middle in validation, and evenly spread in test. "ratio" is the
reference's (google-deepmind/dmvr, processors.py): in training both begin at the same share of the
clip, so that the longer window runs past the end and goes on at the beginning; in test each stream
is spread by itself. In validation the two differ by a rounding at most.

V windows of a clip   T frames   H, W canvas   N spectrogram rows   M mel bins
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mbt_lite.config import PAIRINGS, STREAMS, ClipConfig

WIDEST = 16 / 9  # width over height of a video that fits the canvas whole


class Window(NamedTuple):
    """Where the model begins to see and to hear."""

    frame: float  # at the clip's frame rate, perhaps between two
    row: int  # of the spectrogram


@dataclass(frozen=True)
class Sampling:
    """What a loader takes of every clip, and in which form.

    In training that is one random window, its frames whole on a canvas from which the accelerator
    cuts; otherwise `views` windows, their frames cut to the middle.
    """

    clip: ClipConfig
    training: bool = False
    views: int = 1
    pairing: str = "synchronised"
    streams: tuple[str, ...] = STREAMS
    padded_size: tuple[int, int] | None = None  # pixels, height and width; None: a wide video's

    def __post_init__(self):
        if self.pairing not in PAIRINGS:
            raise ValueError(f"pairing={self.pairing!r}: choose one of {', '.join(PAIRINGS)}.")
        if self.views < 1 or (self.training and self.views > 1):
            raise ValueError(f"views={self.views}: one in training, one or more otherwise.")
        if not self.streams or not set(self.streams) <= set(STREAMS):
            raise ValueError(f"streams={self.streams}: take one or both of {', '.join(STREAMS)}.")
        if min(self.frame_size) < self.clip.size:
            raise ValueError(
                f"a canvas of {self.padded_size} does not hold a crop of {self.clip.size}."
            )

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frames in a batch."""
        if not self.training:
            return self.clip.size, self.clip.size
        return self.padded_size or (self.clip.resize, round(self.clip.resize * WIDEST))

    @property
    def frame_offset(self) -> float:
        """Frames from the beginning of a step to the one that is shown of it.

        The middle, as `features.read_views` has it; the reference takes the beginning.
        """
        return 0 if self.pairing == "ratio" else self.clip.stride / 2

    def draw(self, frames: int, rows: int, rng: np.random.Generator) -> list[Window]:
        """The windows of a clip with so many frames (at the clip's rate) and spectrogram rows."""
        if self.training:
            return [random_window(frames, rows, self.clip, rng, self.pairing)]
        return spread_windows(frames, rows, self.clip, self.views, self.pairing)


def random_window(
    frames: int, rows: int, clip: ClipConfig, rng: np.random.Generator, pairing: str = PAIRINGS[0]
) -> Window:
    """A `Window` for training."""
    if pairing == "ratio":
        return _by_ratio(frames, rows, clip, rng)
    low, high = _middles(frames, rows, clip)
    return _around(rng.uniform(low, high), frames, rows, clip)


def spread_windows(
    frames: int, rows: int, clip: ClipConfig, views: int = 1, pairing: str = PAIRINGS[0]
) -> list[Window]:
    """`views` windows, evenly spread over the clip; one view is its middle."""
    if pairing == "ratio":
        room = frames - clip.frames * clip.stride, rows - clip.spec_frames
        return [
            Window(*pair) for pair in zip(*(_spread(last, views) for last in room), strict=True)
        ]
    low, high = _middles(frames, rows, clip)
    middles = np.linspace(low, high, views) if views > 1 else [(low + high) / 2]
    return [_around(float(middle), frames, rows, clip) for middle in middles]


def indices(first: float, count: int, stride: int, length: int) -> np.ndarray:
    """Places [count] from `first` on; past the end it goes on at the beginning."""
    return (first + stride * np.arange(count)) % length


def _middles(frames: int, rows: int, clip: ClipConfig) -> tuple[float, float]:
    """The first and the last instant, in s, around which the windows of the streams there fit."""
    windows = (
        (frames / clip.fps, clip.video_seconds),
        (rows * clip.front_end.hop, clip.audio_seconds),
    )
    there = [pair for pair in windows if pair[0]]
    total, longest = (min(there)[0], max(pair[1] for pair in there)) if there else (0.0, 0.0)
    half = min(total, longest) / 2
    return half, total - half


def _around(middle: float, frames: int, rows: int, clip: ClipConfig) -> Window:
    frame = (middle - clip.video_seconds / 2) * clip.fps  # whole ones may be 1/4 s apart
    row = round((middle - clip.audio_seconds / 2) / clip.front_end.hop)
    return Window(
        max(min(frame, frames - clip.frames * clip.stride), 0),
        max(min(row, rows - clip.spec_frames), 0),
    )


def _by_ratio(frames: int, rows: int, clip: ClipConfig, rng: np.random.Generator) -> Window:
    if not frames:
        return Window(0, int(rng.integers(max(rows - clip.spec_frames + 1, 1))))
    frame = int(rng.integers(max(frames - (clip.frames - 1) * clip.stride, 1)))
    return Window(frame, round(float(np.float32(frame) / np.float32(frames) * np.float32(rows))))


def _spread(last: int, views: int) -> list[int]:
    """Whole numbers from 0 to `last`, evenly spread and rounded down; one view: the middle."""
    last = max(last, 0)
    return np.linspace(0, last, views).astype(int).tolist() if views > 1 else [last // 2]
