"""The interface of a data set of labeled clips, and how clips become arrays.

R rows of a batch   V windows of a clip, each a row   T frames   N spectrogram rows   C classes
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mbt_lite.data.sampling import Sampling

Fields = dict[str, tuple[tuple[int, ...], str]]  # name: shape, data type
Rows = dict[str, np.ndarray]  # the rows of one clip in the arrays of a batch
THUMBNAIL = 160  # pixels, short side


class Windows(NamedTuple):
    """The windows of one clip that a model is evaluated on."""

    rgb: np.ndarray  # uint8 [V, T, H, W, 3]
    spec: np.ndarray  # float32 [V, N, M], log-mel, not standardized
    notes: tuple[str, ...] = ()  # what was unusual about the file


class Source:
    """A numbered list of labeled clips, for training, evaluation and reports.

    A subclass defines `labels`, `__len__`, `name`, `targets` and `write`.
    """

    labels: Sequence[str]  # the classes in order
    num_auxiliary_classes = 0  # so many of the last classes are predicted in training only
    notes: Sequence[str] = ()  # what was left out of the source, in sentences
    new_each_epoch = False  # training clips are never the same, so that none is kept
    # JSON values that identify the clips, if each is one window, the same in every epoch; else None
    fingerprint: Mapping | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, index: int) -> str:
        """The name of a clip, for people."""
        raise NotImplementedError

    def targets(self, index: int) -> np.ndarray:
        """1 for each class of a clip, else 0: float32 [C]. Zeros if the clip cannot be read."""
        raise NotImplementedError

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write the windows that `sampling` draws of a clip into its rows; return the clip's id.

        Raises ValueError or OSError, naming file or record, if the clip cannot be used.
        """
        raise NotImplementedError

    def read(self, index: int, sampling: Sampling) -> Windows:
        """Read a clip for evaluation, once if all its windows are the same; errors as `write`."""
        out = zeros(batch_fields(self, sampling, 1))
        self.write(index, out, sampling, np.random.default_rng(0))
        repeated = all((out[stream] == out[stream][:1]).all() for stream in ("rgb", "spec"))
        views = 1 if repeated else sampling.views
        return Windows(out["rgb"][:views], out["spec"][:views])

    def file(self, index: int) -> Path | None:
        """The file that holds a clip, if there is one."""
        return None

    def key(self, index: int) -> str:
        """A digest that identifies a clip; it changes when the clip's file does."""
        return file_key(self.file(index), index)

    def thumbnail(self, index: int) -> np.ndarray | None:
        """A frame from the middle of a clip, uint8 [H, W, 3]; None if it has no video."""
        return None


class Subset(Source):
    """Some clips of a source, by their numbers."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray):
        self.source, self.indices = source, np.asarray(indices, int)
        self.labels, self.notes = source.labels, source.notes
        self.num_auxiliary_classes = source.num_auxiliary_classes
        self.new_each_epoch = source.new_each_epoch

    @property
    def fingerprint(self) -> Mapping | None:
        of_all = self.source.fingerprint
        return of_all and {"part of": of_all, "clips": self.indices.tolist()}

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))

    def targets(self, index: int) -> np.ndarray:
        return self.source.targets(int(self.indices[index]))

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        return self.source.write(int(self.indices[index]), out, sampling, rng)

    def read(self, index: int, sampling: Sampling) -> Windows:
        return self.source.read(int(self.indices[index]), sampling)

    def file(self, index: int) -> Path | None:
        return self.source.file(int(self.indices[index]))

    def key(self, index: int) -> str:
        return self.source.key(int(self.indices[index]))

    def thumbnail(self, index: int) -> np.ndarray | None:
        return self.source.thumbnail(int(self.indices[index]))


def file_key(path: Path | None, *place) -> str:
    """A digest of a file, its size and time of change, and a place in it."""
    stat = path.stat() if path and path.exists() else None
    state = f"{stat.st_size}|{stat.st_mtime_ns}" if stat else "missing"
    text = f"{path and path.absolute()}|{place}|{state}"
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def multi_hot(numbers: Sequence[int], classes: int) -> np.ndarray:
    """1 for each of these class numbers, else 0: float32 [C]."""
    targets = np.zeros(classes, np.float32)
    targets[list(numbers)] = 1
    return targets


# ---- batches ----


def batch_fields(source: Source, sampling: Sampling, batch: int) -> Fields:
    """Shape and data type of each array of a batch; the windows of a clip are rows of their own."""
    rows, clip = batch * sampling.views, sampling.clip
    fields = {"labels": ((rows, len(source.labels)), "f4"), "mask": ((rows,), "f4")}
    if "rgb" in sampling.streams:
        fields["rgb"] = ((rows, clip.frames, *sampling.frame_size, 3), "u1")
        if sampling.training:
            fields["valid_size"] = ((rows, 2), "i4")
    if "spec" in sampling.streams:
        fields["spec"] = ((rows, clip.spec_frames, clip.front_end.mels), "f4")
    return fields


def zeros(fields: Fields) -> dict[str, np.ndarray]:
    """A batch of zeros."""
    return {name: np.zeros(shape, dtype) for name, (shape, dtype) in fields.items()}


def write_window(out: Rows, view: int, rgb: np.ndarray | None, spec: np.ndarray | None) -> None:
    """Write window `view` of a clip into its rows.

    Frames [T, h, w, 3] come into the upper left of the padded ones; spec is [N, M]. A stream that
    is not in the batch may be None.
    """
    if "rgb" in out:
        height, width = rgb.shape[1:3]
        out["rgb"][view, :, height:] = out["rgb"][view, :, :, width:] = 0
        out["rgb"][view, :, :height, :width] = rgb
        if "valid_size" in out:
            out["valid_size"][view] = height, width
    if "spec" in out:
        out["spec"][view] = spec


class ClipTask(NamedTuple):
    """A clip to write into a batch."""

    position: int  # in the batch
    index: int  # in the source
    epoch: int


@dataclass(frozen=True)
class ClipWriter:
    """Writes clips into a batch, in any process: windows are drawn from seed, epoch and index."""

    source: Source
    sampling: Sampling
    seed: int

    def __call__(self, task: ClipTask, batch: dict[str, np.ndarray]) -> str | Exception:
        """Fill the rows of a clip; return its id, or the error that made its mask 0."""
        views = self.sampling.views
        rows = slice(task.position * views, (task.position + 1) * views)
        out = {name: array[rows] for name, array in batch.items() if name != "mask"}
        rng = np.random.default_rng([self.seed, task.epoch, task.index])
        try:
            clip_id = self.source.write(task.index, out, self.sampling, rng)
        except (ValueError, OSError) as error:
            for array in batch.values():
                array[rows] = 0
            return error
        batch["mask"][rows] = 1
        return clip_id
