"""The interface of a source of clips, and how clips fill the rows of a batch in any process.

R rows of a batch   V windows of a clip, each a row   C classes
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from mbt_lite.data.sampling import Sampling

Rows = dict[str, np.ndarray]  # a clip's own rows of a batch, to be written: see `BatchMaker.fields`


@runtime_checkable
class Source(Protocol):
    """A numbered list of clips, as a loader needs it."""

    labels: Sequence[str]  # the classes in order
    num_auxiliary_classes: int  # how many labels, the last ones, are for training only
    notes: Sequence[str]  # in sentences, what was left out
    # JSON values that decide its clips, where each is one window and the same in every epoch; None
    # where windows are drawn.
    made_of: Mapping | None

    def __len__(self) -> int: ...

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Write one clip into its rows; its id.

        ValueError or OSError, naming file or record, where it cannot be used.
        """
        ...


class Subset:
    """Some clips of a source, by their numbers."""

    def __init__(self, whole: Source, chosen: np.ndarray):
        self.whole, self.chosen = whole, chosen
        self.labels, self.notes = whole.labels, whole.notes
        self.num_auxiliary_classes = whole.num_auxiliary_classes

    @property
    def made_of(self) -> Mapping | None:
        whole = self.whole.made_of
        return whole and {"part of": whole, "clips": self.chosen.tolist()}

    def __len__(self) -> int:
        return len(self.chosen)

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        return self.whole.write(int(self.chosen[index]), out, sampling, rng)


class Job(NamedTuple):
    """A clip to be put at a place of a batch."""

    place: int
    index: int  # in the source
    epoch: int


@dataclass(frozen=True)
class BatchMaker:
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
            fields["rgb"] = ((rows, clip.frames, *sampling.frame_size, 3), "u1")
            if sampling.training:
                fields["valid_size"] = ((rows, 2), "i4")
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
