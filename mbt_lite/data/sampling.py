"""Choose the windows of video and audio of a clip in training, validation and test.

Two ways to pair audio with video. "synchronised": both windows have the same middle, which is drawn
at random in training, that of the clip in validation, and evenly spaced in test. "ratio" is the
reference's (google-deepmind/dmvr, processors.py): in training both begin at the same fraction of
the clip, so that the longer window may wrap around the end; in test the windows of each stream are
spaced independently. In validation the two differ by rounding at most.

V windows of a clip   T frames   H, W of the padded frames   N spectrogram rows   M mel bins
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mbt_lite.config import PAIRINGS, STREAMS, ClipConfig

WIDEST = 16 / 9  # width over height of the widest video that is not cropped in training


class Window(NamedTuple):
    """The first frame and the first spectrogram row of a window."""

    frame: float  # at the clip's frame rate, perhaps between two frames
    row: int  # of the spectrogram


@dataclass(frozen=True)
class Sampling:
    """Which windows are read of every clip, and in which size.

    In training one random window, its frames padded, to be cropped by the train step; otherwise
    `views` evenly spaced windows, their frames cropped to the center.
    """

    clip: ClipConfig
    training: bool = False
    views: int = 1
    pairing: str = "synchronised"
    streams: tuple[str, ...] = STREAMS
    padded_size: tuple[int, int] | None = None  # pixels, height and width; None: for wide videos

    def __post_init__(self):
        if self.pairing not in PAIRINGS:
            raise ValueError(f"pairing={self.pairing!r}: choose one of {', '.join(PAIRINGS)}.")
        if self.views < 1 or (self.training and self.views > 1):
            raise ValueError(f"views={self.views}: one in training, one or more otherwise.")
        if not self.streams or not set(self.streams) <= set(STREAMS):
            raise ValueError(f"streams={self.streams}: take one or both of {', '.join(STREAMS)}.")
        if min(self.frame_size) < self.clip.size:
            raise ValueError(
                f"padded frames of {self.padded_size} are smaller than a crop of {self.clip.size}."
            )

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of the frames in a batch."""
        if not self.training:
            return self.clip.size, self.clip.size
        return self.padded_size or (self.clip.resize, round(self.clip.resize * WIDEST))

    @property
    def frame_offset(self) -> float:
        """Frames from the beginning of a step to the frame that is taken of it.

        The middle one, as in `features.read_views`; the reference takes the first.
        """
        return 0 if self.pairing == "ratio" else self.clip.stride / 2

    def draw(self, frames: int, rows: int, rng: np.random.Generator) -> list[Window]:
        """The windows of a clip with these numbers of frames (at the clip's rate) and rows."""
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
    """`views` windows, evenly spaced over the clip; one view is its middle."""
    if pairing == "ratio":
        room = frames - clip.frames * clip.stride, rows - clip.spec_frames
        return [
            Window(*pair) for pair in zip(*(_spread(last, views) for last in room), strict=True)
        ]
    low, high = _middles(frames, rows, clip)
    middles = np.linspace(low, high, views) if views > 1 else [(low + high) / 2]
    return [_around(float(middle), frames, rows, clip) for middle in middles]


def indices(first: float, count: int, stride: int, length: int) -> np.ndarray:
    """Positions [count] from `first` on, wrapped around at `length`."""
    return (first + stride * np.arange(count)) % length


def _middles(frames: int, rows: int, clip: ClipConfig) -> tuple[float, float]:
    """The first and the last time (s) that can be the middle of the windows of all its streams."""
    streams = (
        (frames / clip.fps, clip.video_seconds),
        (rows * clip.front_end.hop, clip.audio_seconds),
    )
    streams = [(total, window) for total, window in streams if total]
    if not streams:
        return 0.0, 0.0
    total, longest = min(streams)[0], max(window for _, window in streams)
    half = min(total, longest) / 2
    return half, total - half


def _around(middle: float, frames: int, rows: int, clip: ClipConfig) -> Window:
    frame = (middle - clip.video_seconds / 2) * clip.fps  # not rounded: frames may be 1/4 s apart
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
    """Integers from 0 to `last`, evenly spaced and rounded down; one view: the middle."""
    last = max(last, 0)
    return np.linspace(0, last, views).astype(int).tolist() if views > 1 else [last // 2]
