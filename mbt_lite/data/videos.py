"""A source of labeled windows of video files, decoded when they are drawn.

N spectrogram rows   M mel bins
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from mbt_lite import features, media
from mbt_lite.config import ClipConfig
from mbt_lite.data import tables
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import THUMBNAIL, Rows, Source, Windows, file_key, multi_hot
from mbt_lite.data.windows import Stream, write


class FileSource(Source):
    """The labeled windows of video files that `tables.read` reads; of one split or of all."""

    def __init__(self, table: tables.AnnotationTable, split: str | None = None):
        self.labels, self.notes = tuple(table.labels), table.notes
        of_split = [row for row in table.rows if split is None or row.split == split]
        self.rows = [row for row in of_split if row.path]
        if not self.rows:
            reason = f"{len(of_split)} rows, but no files"
            raise ValueError(
                f"the table has {reason if of_split else f'no rows of split {split}'}."
            )
        self.numbers = {label: number for number, label in enumerate(self.labels)}

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        row = self.rows[index]
        return f"{row.path}" + ("" if row.start is None else f" from {row.start:g} s")

    def targets(self, index: int) -> np.ndarray:
        numbers = [self.numbers[label] for label in self.rows[index].labels]
        return multi_hot(numbers, len(self.labels))

    def file(self, index: int) -> Path:
        return self.rows[index].path

    def key(self, index: int) -> str:
        row = self.rows[index]
        return file_key(row.path, row.start, row.end)

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one clip, of which only the drawn windows are read; return its id."""
        row, clip = self.rows[index], sampling.clip
        info = _probe(row.path, clip.audio_track)
        start, length = tables.window(row, info.duration)
        remaining = (info.duration or np.inf) - start
        seconds = min(remaining, np.inf if length is None else length)
        if not 0 < seconds < np.inf:
            raise ValueError(f"{row.path}: the window from {start:g} s on has no known end.")
        num_frames = round(seconds * clip.fps) if info.has_video else 0
        num_rows = round(seconds / clip.front_end.hop) if info.has_audio else 0

        def frames(positions: np.ndarray) -> Iterator[np.ndarray]:
            return _frames(row.path, start + positions / clip.fps, clip)

        def spectrogram(positions: np.ndarray) -> np.ndarray:
            return _spectrogram(row.path, start, positions, clip)

        out["labels"][:] = self.targets(index)
        write(out, sampling, rng, Stream(num_frames, frames), Stream(num_rows, spectrogram))
        return row.id

    def read(self, index: int, sampling: Sampling) -> Windows:
        """Read a clip for evaluation: a file, or its window at the row's start, as in prediction.

        A row that has an end is read within its window.
        """
        if self.rows[index].end is not None or sampling.pairing != "synchronised":
            return super().read(index, sampling)
        views = self.views(index, sampling.clip, sampling.views)
        notes = tuple(dict.fromkeys(note for view in views for note in view.notes))
        rgb, spec = (np.stack([getattr(view, name) for view in views]) for name in ("rgb", "spec"))
        return Windows(rgb, spec, notes)

    def views(self, index: int, clip: ClipConfig, count: int) -> list[features.View]:
        """Evenly spaced views of a file, one if they would all be the same; or one at its start."""
        row = self.rows[index]
        count = count if row.start is None else 1
        total = media.seconds(row.path, clip.audio_track) if count > 1 else None
        if total is not None and total <= max(clip.video_seconds, clip.audio_seconds):
            count = 1
        return features.read_views(row.path, clip, count, row.start)

    def thumbnail(self, index: int) -> np.ndarray | None:
        row = self.rows[index]
        start = (media.seconds(row.path) or 0) / 2 if row.start is None else row.start
        window = media.read(row.path, start, 0.1, short_side=THUMBNAIL)
        return window.frames[0] if len(window.frames) else None


@lru_cache(maxsize=100_000)
def _probe(path: Path, audio_track: int | None) -> media.Info:
    return media.probe(path, audio_track)


def _spectrogram(path: Path, start: float, rows: np.ndarray, clip: ClipConfig) -> np.ndarray:
    """Log-mel rows [N, M] of a file, counted from `start` seconds on."""
    hop, rate = clip.front_end.hop_samples, clip.front_end.rate
    first, end = int(rows.min()) * hop, (int(rows.max()) + 1) * hop
    options = {"only": "audio", "audio_track": clip.audio_track}
    window = media.read(path, start + first / rate, (end - first) / rate, **options)
    wave = np.zeros(end - first, np.float32)
    wave[: len(window.wave)] = window.wave[: len(wave)]
    samples = (rows[:, None] * hop + np.arange(hop)).ravel() - first
    return features.log_mel(wave[samples], clip.front_end)


def _frames(path: Path, times: np.ndarray, clip: ClipConfig) -> Iterator[np.ndarray]:
    """The frames uint8 [H, W, 3] of a file that are on screen at rising times (s)."""
    gaps = np.flatnonzero(np.diff(times) > 1.5 * clip.frame_step) + 1
    for run in np.split(times, gaps):  # windows far from each other are read one by one
        yield from _frames_of_run(path, run, clip)


def _frames_of_run(path: Path, times: np.ndarray, clip: ClipConfig) -> np.ndarray:
    """As `_frames`, [n, H, W, 3], at times that lie close together.

    The frame on screen is the one nearest to half a frame earlier; 0.49, so that two frames are
    never equally near. If the times lie on a grid, `media.read` keeps only the frames of the grid.
    """
    earlier = np.maximum(times - 0.49 / (_probe(path, clip.audio_track).fps or clip.fps), 0)
    steps = (earlier - earlier[0]) / clip.frame_step
    on_grid = np.abs(steps - steps.round()).max() < 1e-3
    window = media.read(
        path,
        float(earlier[0]),
        float(earlier[-1] - earlier[0]) + clip.frame_step,
        fps=1 / clip.frame_step if on_grid else None,
        short_side=clip.resize,
        only="video",
    )
    nearest = np.abs(window.times + earlier[0] - earlier[:, None]).argmin(1)
    return window.frames[nearest]
