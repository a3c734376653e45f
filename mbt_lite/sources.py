"""Where training and test clips come from: labelled files, prepared records, TFDS, the micro-world.

A source is a numbered list of clips. `write` puts one into a batch, straight where it belongs, and
decodes only what was drawn. A stream that a clip lacks is black or silent.

V windows of a clip   T frames   H, W of the canvas   N spectrogram rows   M mel bins   C classes
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from mbt_lite import media, records, tables, world
from mbt_lite.config import ClipConfig, FrontEnd, from_dict
from mbt_lite.features import log_mel
from mbt_lite.sampling import Sampling, Window, indices

Rows = dict[str, np.ndarray]  # a clip's own rows of a batch, to be written: see `Filler.fields`


@runtime_checkable
class Source(Protocol):
    """What a loader needs of a source."""

    labels: Sequence[str]  # the classes in order

    def __len__(self) -> int: ...

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one clip into its rows; its id.

        ValueError or OSError, naming file or record, where it cannot be used.
        """
        ...


class World:
    """Roughened clips of the micro-world's training split, made when they are asked for."""

    labels = (*world.LABELS, *world.PARTS)

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Clip `index` of the seed, which is random enough: nothing more is drawn."""
        own = np.random.default_rng([self.seed, index, 3])
        scene = world.scene(world.SPLITS["train"], self.seed * 2**32 + index)
        made = world.sample(scene, sampling.clip, own)
        out["extent"][:] = sampling.picture
        for name, values in made.items():
            out[name][:] = values
        return f"world:train {index}"


class Records:
    """Prepared clips: `records.Shards`, or `builders.table.Clips` of a TFDS dataset.

    `front` is what made their spectrograms; None where nobody says.
    """

    def __init__(self, clips, labels: Sequence[str], front: FrontEnd | None):
        self.clips, self.labels, self.front = clips, tuple(labels), front

    def __len__(self) -> int:
        return len(self.clips)

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one clip, of which only the drawn frames are decoded; its id."""
        example, clip = self.clips[index], sampling.clip
        spectrogram = self._spectrogram(example, clip.front_end)
        count = round(len(example.jpegs) / records.FPS * clip.fps)

        def frames(chosen: np.ndarray) -> Iterator[np.ndarray]:
            stored = (chosen * records.FPS / clip.fps + 1e-6).astype(int)
            scratch = None
            for index in np.minimum(stored, len(example.jpegs) - 1).tolist():
                scratch = example.frame(index, scratch)
                yield scratch

        def rows(chosen: np.ndarray) -> np.ndarray:
            return spectrogram[chosen]

        _mark(out["labels"], example.labels)
        _write(out, sampling, rng, Stream(count, frames), Stream(len(spectrogram), rows))
        return example.id

    def _spectrogram(self, example: records.Example, front: FrontEnd) -> np.ndarray:
        """float32 [rows, M]: the stored one, or that of the sound where the model hears otherwise.

        Where nobody says how the stored ones were made, they are taken as they are.
        """
        if self.front is None or _alike(front) == _alike(self.front):
            stored = example.melspec.reshape(-1, records.MELS)
            if (front.mels, round(1 / front.hop)) == (records.MELS, records.ROWS):
                return stored
        elif len(example.wave):
            return log_mel(example.wave, front)
        raise ValueError(
            f"{example.source or example.id}: its spectrogram is made otherwise than front end "
            f"{front.name!r} would, and there is no sound to make it anew; prepare the clips again."
        )


class Table:
    """The labelled windows of video files, see `tables.read_rows`; of one split or of all."""

    def __init__(self, rows: tables.Rows, split: str | None = None):
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
        info = _probe(row.path)
        start, length = tables.window(row, info.duration)
        left = (info.duration or np.inf) - start
        seconds = min(left, np.inf if length is None else length)
        if not 0 < seconds < np.inf:
            raise ValueError(f"{row.path}: the window from {start:g} s on has no known end.")
        hop = clip.front_end.hop_samples
        count = round(seconds * clip.fps) if info.has_video else 0
        heard = round(seconds / clip.front_end.hop) if info.has_audio else 0

        def frames(chosen: np.ndarray) -> Iterator[np.ndarray]:
            yield from _shown(row.path, start + chosen / clip.fps, clip)

        def rows(chosen: np.ndarray) -> np.ndarray:
            begin, rate = int(chosen.min()) * hop, clip.front_end.rate
            end = (int(chosen.max()) + 1) * hop
            found = media.read(row.path, start + begin / rate, (end - begin) / rate, only="sound")
            wave = np.zeros(end - begin, np.float32)
            wave[: len(found.wave)] = found.wave[: len(wave)]
            places = (chosen[:, None] * hop + np.arange(hop)).ravel() - begin
            return log_mel(wave[places], clip.front_end)

        _mark(out["labels"], [self.numbers[label] for label in row.labels])
        _write(out, sampling, rng, Stream(count, frames), Stream(heard, rows))
        return row.id


class Digits:
    """The pairs of `av_digits`, see builders/."""

    def __init__(self, builder, split: str):
        self.labels = tuple(builder.info.features["label"].names)
        self.stored = builder.as_data_source(split)

    def __len__(self) -> int:
        return len(self.stored)

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one pair, picture and sound whole in every window; its id."""
        from mbt_lite.builders import av_digits

        made, clip = av_digits.sample(self.stored[index], sampling.clip), sampling.clip

        def frames(chosen: np.ndarray) -> Iterator[np.ndarray]:
            yield from made["rgb"][chosen // clip.stride]

        out["labels"][:] = made["labels"]
        picture = Stream(clip.frames * clip.stride, frames)
        _write(out, sampling, rng, picture, Stream(clip.spec_frames, made["spec"].__getitem__))
        return made["id"]


def open_source(
    place: str | Path,
    split: str | None = None,
    videos: Path | None = None,
    names: Path | None = None,
    labels: Sequence[str] = (),
) -> Source:
    """The `Source` at a place, or one split of it: records, a TFDS dataset, or labelled files.

    Records are a folder of shards, a pattern or name@128; `labels` are the classes of those that
    have no dataset.json. A TFDS dataset is the folder that `mbt-lite build` names. Labelled files
    are what `tables.read_rows` takes, with `videos` and `names`. ValueError where there is nothing
    to learn from.
    """
    path = Path(place)
    if (path / "dataset_info.json").exists():
        return _from_tfds(path, split or "train")
    if _holds_records(path):
        return _from_shards(place, split, labels)
    if not path.exists():
        raise ValueError(f"there is no {place}; name a folder of records, a table (CSV) or videos.")
    return Table(tables.read_rows(path, videos, names), split)


def _holds_records(path: Path) -> bool:
    """Whether a path is a shard, a folder of some, or a pattern for them."""
    inside = [entry.name for entry in path.iterdir()] if path.is_dir() else []
    known = records.DESCRIPTION in inside or re.search(r"[*@]", path.name)
    return bool(known or any(map(records.SHARD.fullmatch, [path.name, *inside])))


def _from_shards(place: str | Path, split: str | None, labels: Sequence[str]) -> Records:
    told = records.describe(place) if (Path(place) / records.DESCRIPTION).exists() else {}
    found = tuple(told.get("labels", labels))
    if not found or (labels and tuple(labels) != found):
        said = f"has the classes {_first(found)}" if found else "names no classes"
        raise ValueError(f"{place} {said}; the model's are {_first(labels)}.")
    front = from_dict(FrontEnd, told["front_end"]) if told else None
    return Records(records.Shards(place, split, len(found)), found, front)


def _from_tfds(folder: Path, split: str) -> Source:
    import tensorflow_datasets as tfds  # slow to come, and rarely needed

    from mbt_lite.builders import table

    builder = tfds.builder_from_directory(str(folder))
    if split not in builder.info.splits:
        raise ValueError(f"{folder} has no split {split}; it has {', '.join(builder.info.splits)}.")
    if builder.name == "av_digits":
        return Digits(builder, split)
    if not {"jpegs", "melspec"} <= set(builder.info.features):
        raise ValueError(f"{folder} holds no clips that `mbt-lite build` made.")
    clips = table.Clips(folder, split)
    return Records(clips, clips.labels, from_dict(FrontEnd, dict(clips.front_end)))


def _first(labels: Sequence[str]) -> str:
    return ", ".join([*labels[:3], *(["..."] if len(labels) > 3 else [])]) or "not given"


def _alike(front: FrontEnd) -> FrontEnd:
    """What decides the values of a spectrogram."""
    return replace(front, name="", mean=0.0, std=1.0)


def _mark(labels: np.ndarray, numbers: Sequence[int]) -> None:
    """1 in the columns of the true classes, 0 elsewhere."""
    labels[:] = 0
    labels[:, list(numbers)] = 1


# ---- windows of a clip ----


class Stream(NamedTuple):
    """One stream of a clip: how many frames or rows there are, and those of rising indices."""

    count: int
    read: Callable[[np.ndarray], Iterable[np.ndarray]]


def _write(
    out: Rows, sampling: Sampling, rng: np.random.Generator, picture: Stream, sound: Stream
) -> None:
    """Write the windows that are drawn of a clip."""
    clip = sampling.clip
    rgb, spec = ("rgb" in out) * picture.count, ("spec" in out) * sound.count
    windows = sampling.draw(rgb, spec, rng)
    if "rgb" in out:
        extent = _write_picture(out["rgb"], windows, picture, sampling, rng)
        out.get("extent", np.zeros((1, 2)))[:] = extent
    if "spec" in out:
        out["spec"][:] = clip.front_end.silence
        for view, window in enumerate(windows if spec else []):
            out["spec"][view] = sound.read(indices(window.row, clip.spec_frames, 1, spec))


def _write_picture(
    out: np.ndarray, windows: Sequence[Window], picture: Stream, sampling: Sampling, rng
) -> tuple[int, int]:
    """Write the frames [V, T, H, W, 3] of all windows, each decoded once; the extent on the canvas.

    What a canvas does not hold of a picture is cut off at a place that is drawn.
    """
    clip, (height, width) = sampling.clip, sampling.picture
    if not picture.count:
        out[:] = 0
        return height, width
    chosen = [indices(w.frame, clip.frames, clip.stride, picture.count) for w in windows]
    wanted, places = np.unique(np.stack(chosen), return_inverse=True)
    places, size = places.reshape(out.shape[:2]), None
    for number, frame in enumerate(picture.read(wanted)):
        if size is None:
            size = _scaled(frame.shape[:2], clip)
            top, left = (_begin(r, sampling, rng) for r in (size[0] - height, size[1] - width))
            extent = min(size[0], height), min(size[1], width)
        part = _resized(frame, size)[top : top + height, left : left + width]
        for view, step in zip(*np.nonzero(places == number), strict=True):
            out[view, step, : extent[0], : extent[1]] = part
    out[:, :, extent[0] :] = 0
    out[:, :, :, extent[1] :] = 0
    return extent


def _begin(room: int, sampling: Sampling, rng: np.random.Generator) -> int:
    """The first pixel that is kept where `room` pixels are too many."""
    room = max(room, 0)
    return int(rng.integers(room + 1)) if sampling.training else room // 2


def _scaled(size: tuple[int, int], clip: ClipConfig) -> tuple[int, int]:
    """Height and width of a picture when its short side is `clip.resize`."""
    scale = clip.resize / min(size)
    return tuple(max(round(side * scale), clip.size) for side in size)


def _resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR))


# ---- rows of a batch ----


class Job(NamedTuple):
    """A clip to be put at a place of a batch."""

    place: int
    index: int  # in the source
    epoch: int


@dataclass(frozen=True)
class Filler:
    """Writes clips into a batch, in whatever process: what is drawn depends on the job alone."""

    source: Source
    sampling: Sampling
    seed: int

    def fields(self, batch: int) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of each array of a batch; the views of a clip are rows of their own."""
        sampling, rows = self.sampling, batch * self.sampling.views
        clip = sampling.clip
        fields = {"labels": ((rows, len(self.source.labels)), "f4"), "mask": ((rows,), "f4")}
        if "rgb" in sampling.streams:
            fields["rgb"] = ((rows, clip.frames, *sampling.picture, 3), "u1")
            if sampling.training:
                fields["extent"] = ((rows, 2), "i4")
        if "spec" in sampling.streams:
            fields["spec"] = ((rows, clip.spec_frames, clip.front_end.mels), "f4")
        return fields

    def __call__(self, job: Job, arrays: dict[str, np.ndarray]) -> str | Exception:
        """Fill the rows of a clip; its id, or why it could not be used, with mask 0."""
        views = self.sampling.views
        rows = slice(job.place * views, (job.place + 1) * views)
        out = {name: array[rows] for name, array in arrays.items() if name != "mask"}
        rng = np.random.default_rng([self.seed, job.epoch, job.index])
        try:
            name = self.source.write(job.index, out, self.sampling, rng)
        except (ValueError, OSError) as error:
            for array in arrays.values():
                array[rows] = 0
            return error
        arrays["mask"][rows] = 1
        return name


# ---- video files ----


@lru_cache(maxsize=100_000)
def _probe(path: Path) -> media.Info:
    return media.probe(path)


def _shown(path: Path, instants: np.ndarray, clip: ClipConfig) -> np.ndarray:
    """Frames uint8 [n, H, W, 3] nearest to these instants (s, rising) of a file."""
    begin = max(float(instants[0]), 0.0)
    length = float(instants[-1]) - begin + clip.frame_step
    found = media.read(
        path, begin, length, fps=1 / clip.frame_step, short_side=clip.resize, only="picture"
    )
    nearest = np.abs(found.times + begin - instants[:, None]).argmin(1)
    return found.frames[nearest]
