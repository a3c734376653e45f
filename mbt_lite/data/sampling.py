"""Choose the windows of video and audio of a clip in training, validation and test.

Two ways to pair audio with video. "synchronised": both windows have the same middle, which is drawn
at random in training, that of the clip in validation, and evenly spaced in test. "ratio" is the
reference's (google-deepmind/dmvr, processors.py): in training both begin at the same fraction of
the clip, so that the longer window may wrap around the end; in test the windows of each stream are
spaced independently. In validation the two differ by rounding at most.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mbt_lite.config import PAIRINGS, STREAMS, ClipConfig
from mbt_lite.features import starts

WIDEST = 16 / 9  # width over height of the widest video that is not cropped in training
# {stream: seconds}: lengths of the streams that a clip has, or where they begin in a window
Seconds = Mapping[str, float]


@dataclass(frozen=True)
class Sampling:
    """Which windows are read of every clip, and in which size.

    In training `views` random windows, their frames padded, to be cropped by the train step;
    otherwise evenly spaced ones, their frames cropped to the center.
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
        if self.views < 1:
            raise ValueError(f"views={self.views}: take one or more.")
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

    def windows(self, lengths: Seconds, rng: np.random.Generator) -> list[dict[str, float]]:
        """{stream: s after the clip's start} at which each stream of each window begins.

        `lengths` are those of the streams that the clip has, of which some may not be read.
        """
        lengths = {stream: lengths[stream] for stream in self.streams if lengths.get(stream)}
        if not lengths:
            return [{}] * self.views
        if self.pairing == "ratio":
            return self._by_ratio(lengths, rng)
        total, longest = min(lengths.values()), max(self.clip.lengths[s] for s in lengths)
        if self.training:
            begins = rng.uniform(0, max(total - longest, 0), self.views).tolist()
        else:
            begins = starts(total, longest, self.views)
        length = min(total, longest)  # of a window
        margins = {s: max((length - self.clip.lengths[s]) / 2, 0) for s in lengths}
        return [{s: begin + margin for s, margin in margins.items()} for begin in begins]

    def corner(self, rng: np.random.Generator) -> tuple[float, float]:
        """Where larger frames are cropped, see `features.crop`: in training at random."""
        return tuple(rng.random(2)) if self.training else (0.5, 0.5)

    def _by_ratio(self, lengths: Seconds, rng: np.random.Generator) -> list[dict[str, float]]:
        """`windows` as the reference draws them, in whole frames and rows.

        It takes the first frame of each step, we the middle: its video begins half a step earlier.
        """
        clip, hop = self.clip, self.clip.front_end.hop
        frames = round(lengths.get("rgb", 0) * clip.fps)
        rows = round(lengths.get("spec", 0) / hop)
        if self.training:
            pairs = [_same_share(frames, rows, clip, rng) for _ in range(self.views)]
        else:
            room = frames - clip.frames * clip.stride, rows - clip.spec_frames
            pairs = zip(*(_spread(last, self.views) for last in room), strict=True)
        begins = (
            {"rgb": frame / clip.fps - clip.frame_step / 2, "spec": row * hop}
            for frame, row in pairs
        )
        return [{stream: begin[stream] for stream in lengths} for begin in begins]


def _same_share(
    frames: int, rows: int, clip: ClipConfig, rng: np.random.Generator
) -> tuple[int, int]:
    """A random frame, and the spectrogram row at the same fraction of the clip."""
    if not frames:
        return 0, int(rng.integers(max(rows - clip.spec_frames + 1, 1)))
    frame = int(rng.integers(max(frames - (clip.frames - 1) * clip.stride, 1)))
    return frame, round(float(np.float32(frame) / np.float32(frames) * np.float32(rows)))


def _spread(last: int, views: int) -> list[int]:
    """Integers from 0 to `last`, evenly spaced and rounded down; one view: the middle."""
    last = max(last, 0)
    return np.linspace(0, last, views).astype(int).tolist() if views > 1 else [last // 2]
