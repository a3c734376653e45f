"""A source of labeled windows of video files, decoded when they are drawn.

N spectrogram rows   M mel bins
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from mbt_lite import media
from mbt_lite.config import ClipConfig
from mbt_lite.data import tables
from mbt_lite.data.filler import Rows
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.windows import Stream, multi_hot, write
from mbt_lite.features import log_mel


class Table:
    """The labelled windows of video files, see `tables.read`; of one split or of all."""

    num_auxiliary_classes = 0
    made_of = None

    def __init__(self, rows: tables.AnnotationTable, split: str | None = None):
        self.labels = tuple(rows.labels)
        of_split = [row for row in rows.rows if split is None or row.split == split]
        self.rows = [row for row in of_split if row.path]
        self.notes = rows.notes
        if not self.rows:
            found = (
                f"{len(of_split)} rows, but no files" if of_split else f"no rows of split {split}"
            )
            raise ValueError(f"the table has {found}.")
        self.numbers = {label: number for number, label in enumerate(self.labels)}

    def __len__(self) -> int:
        return len(self.rows)

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one clip, of which only the drawn windows are read; its id."""
        row, clip = self.rows[index], sampling.clip
        info = _probe(row.path, clip.audio_track)
        start, length = tables.window(row, info.duration)
        left = (info.duration or np.inf) - start
        seconds = min(left, np.inf if length is None else length)
        if not 0 < seconds < np.inf:
            raise ValueError(f"{row.path}: the window from {start:g} s on has no known end.")
        hop = clip.front_end.hop_samples
        count = round(seconds * clip.fps) if info.has_video else 0
        heard = round(seconds / clip.front_end.hop) if info.has_audio else 0

        def frames(chosen: np.ndarray) -> Iterator[np.ndarray]:
            return _shown(row.path, start + chosen / clip.fps, clip)

        def rows(chosen: np.ndarray) -> np.ndarray:
            begin, rate = int(chosen.min()) * hop, clip.front_end.rate
            end = (int(chosen.max()) + 1) * hop
            thin = {"only": "audio", "audio_track": clip.audio_track}
            found = media.read(row.path, start + begin / rate, (end - begin) / rate, **thin)
            wave = np.zeros(end - begin, np.float32)
            wave[: len(found.wave)] = found.wave[: len(wave)]
            places = (chosen[:, None] * hop + np.arange(hop)).ravel() - begin
            return log_mel(wave[places], clip.front_end)

        multi_hot(out["labels"], [self.numbers[label] for label in row.labels])
        write(out, sampling, rng, Stream(count, frames), Stream(heard, rows))
        return row.id


@lru_cache(maxsize=100_000)
def _probe(path: Path, audio_track: int | None) -> media.Info:
    return media.probe(path, audio_track)


def _shown(path: Path, instants: np.ndarray, clip: ClipConfig) -> Iterator[np.ndarray]:
    """The frames uint8 [H, W, 3] on show at these instants (s, rising) of a file."""
    apart = np.flatnonzero(np.diff(instants) > 1.5 * clip.frame_step) + 1
    for run in np.split(instants, apart):  # windows far from each other are read one by one
        yield from _run(path, run, clip)


def _run(path: Path, instants: np.ndarray, clip: ClipConfig) -> np.ndarray:
    """As `_shown`, [n, H, W, 3], of instants that lie close together.

    The frame on show is the one nearest to half a frame earlier; a little less, lest two be equally
    near. Where the instants lie on a grid, `media.read` keeps no others.
    """
    earlier = np.maximum(instants - 0.49 / (_probe(path, clip.audio_track).fps or clip.fps), 0)
    steps = (earlier - earlier[0]) / clip.frame_step
    even = np.abs(steps - steps.round()).max() < 1e-3
    found = media.read(
        path,
        float(earlier[0]),
        float(earlier[-1] - earlier[0]) + clip.frame_step,
        fps=1 / clip.frame_step if even else None,
        short_side=clip.resize,
        only="video",
    )
    nearest = np.abs(found.times + earlier[0] - earlier[:, None]).argmin(1)
    return found.frames[nearest]
