"""A source of labeled windows of video files, decoded when they are drawn."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from mbt_lite import features, media
from mbt_lite.config import ClipConfig
from mbt_lite.data import tables
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import THUMBNAIL, Rows, Source, Windows, file_key, multi_hot, write_window


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
        seconds = min((info.duration or np.inf) - start, np.inf if length is None else length)
        if not 0 < seconds < np.inf:
            raise ValueError(f"{row.path}: the window from {start:g} s on has no known end.")
        lengths = {"rgb": seconds * info.has_video, "spec": seconds * info.has_audio}
        if not any(lengths[stream] for stream in sampling.streams):
            raise ValueError(f"{row.path} has no stream of the model: {sampling.streams}.")
        starts = sampling.windows(lengths, rng)
        corners = [sampling.corner(rng) for _ in starts]
        size, part = sampling.frame_size, (start, seconds)
        out["labels"][:] = self.targets(index)
        views = features.read_windows(row.path, clip, starts, part, size, corners)
        for number, view in enumerate(views):
            write_window(out, number, view.rgb, view.spec)
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
        if total is not None and total <= max(clip.lengths.values()):
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
