"""Load batches of clips deterministically; a loader can be resumed at any batch.

R rows of a batch   T frames   N spectrogram frames   M mel bins   C classes
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import grain
import numpy as np

from mbt_lite.data import workers
from mbt_lite.data.filler import BatchMaker, Job, Source
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.workers import Workers

AHEAD = 2  # batches that are prepared at a time
ENDLESS = 2**48  # batches

log = logging.getLogger(__name__)


class Loader:
    """Batches of a source, in an order that depends on the seed alone, from any point on.

    Each is a dictionary: rgb uint8 [R, T, H, W, 3], spec float32 [R, N, M] (log-mel, not
    standardised), labels float32 [R, C], mask float32 [R], 1 for clips and 0 for what only fills
    the batch, id, a list of R names; in training also extent int32 [R, 2], the height and width of
    the video in the upper left of its canvas. R is `batch`, times the views of each clip.

    Each of `hosts` processes gets its own part of every epoch: together each clip once, and each
    the same number of batches. With `workers`, so many processes read ahead; they do not change
    what comes. A clip that cannot be used raises its error, or with on_error="skip" leaves its
    place empty: `skipped` counts them, and each is logged.
    """

    def __init__(
        self,
        source: Source,
        sampling: Sampling,
        batch: int,
        *,
        seed: int = 0,
        epochs: int | None = 1,
        shuffle: bool | None = None,
        host: int = 0,
        hosts: int = 1,
        workers: int = 0,
        on_error: str = "raise",
    ):
        """`epochs` None: without end; `shuffle` None: in training only."""
        if batch < 1 or workers < 0 or not 0 <= host < hosts or on_error not in ("raise", "skip"):
            raise ValueError(
                f"batch={batch}, workers={workers}, host={host} of {hosts}, on_error={on_error!r}: "
                "a batch has one clip or more, hosts count from 0, on_error is raise or skip."
            )
        if not len(source):
            raise ValueError("the source has no clips.")
        shuffle = sampling.training if shuffle is None else shuffle
        self.plan = Plan(len(source), batch, seed, shuffle, host, hosts)
        self.steps = _Steps(
            BatchMaker(source, sampling, seed), self.plan, epochs, workers, on_error
        )
        ahead = AHEAD if workers else 0
        options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
        self.batches = iter(grain.MapDataset.source(self.steps).to_iter_dataset(options))
        self.skipped = 0

    def __len__(self) -> int:
        """Batches in all, from the first one on."""
        return len(self.steps)

    def __iter__(self) -> Iterator[dict]:
        return self

    def __next__(self) -> dict:
        batch = next(self.batches)
        for error in batch.pop("faults"):
            self.skipped += 1
            log.warning("clip left out, number %d: %s", self.skipped, error)
        return batch

    @property
    def fields(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and type of each array of a batch."""
        return self.steps.fields

    @property
    def views(self) -> int:
        """Rows of each clip, one after the other."""
        return self.steps.filler.sampling.views

    def state(self, batch: int | None = None) -> dict[str, int]:
        """Where the next batch comes from, or `batch`, counted from 0; ready for JSON.

        It does not depend on the workers.
        """
        following = self.batches.get_state()["next_index"] if batch is None else batch
        return {"batches": following, **self.plan.identity}

    def restore(self, state: dict[str, int]) -> None:
        """Go on where `state` was taken; ValueError where the order was another one."""
        asked = {name: state.get(name) for name in self.plan.identity}
        if asked != self.plan.identity:
            raise ValueError(f"the data was at {asked}, but now is {self.plan.identity}.")
        self.seek(state["batches"])

    def seek(self, batch: int) -> None:
        """Go on with this batch, counted from 0."""
        self.batches.set_state({"next_index": batch})

    def close(self) -> None:
        """End the worker processes."""
        self.batches.close()
        self.steps.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_) -> None:
        self.close()


@dataclass(frozen=True)
class Plan:
    """Which clips are in which batch of a host."""

    clips: int
    batch: int
    seed: int
    shuffle: bool
    host: int
    hosts: int

    @property
    def identity(self) -> dict[str, int]:
        """What decides the order, for all hosts together."""
        every = self.batch * self.hosts
        return {
            "clips": self.clips,
            "batch": every,
            "seed": self.seed,
            "shuffle": int(self.shuffle),
        }

    @property
    def per_epoch(self) -> int:
        """Batches of each host."""
        return -(-self.clips // (self.batch * self.hosts))

    def jobs(self, step: int) -> list[Job]:
        """The clips of a batch; fewer than its places at the end of an epoch, or none."""
        epoch, number = divmod(step, self.per_epoch)
        first = (number * self.hosts + self.host) * self.batch
        chosen = range(first, min(first + self.batch, self.clips))
        if self.shuffle:
            chosen = _order(self.seed, epoch, self.clips)[chosen.start : chosen.stop]
        return [Job(place, int(index), epoch) for place, index in enumerate(chosen)]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, clips: int) -> np.ndarray:
    """All clips in the order of an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(clips)


class _Steps:
    """The batches of a host by number, as Grain asks for them, from several threads."""

    def __init__(self, filler, plan: Plan, epochs: int | None, count: int, on_error: str):
        self.filler, self.plan, self.on_error = filler, plan, on_error
        self.count = ENDLESS if epochs is None else epochs * plan.per_epoch
        self.fields = filler.fields(plan.batch)
        self.workers = Workers(filler, self.fields, count, AHEAD) if count else None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> dict:
        jobs = self.plan.jobs(step)
        if self.workers:
            batch, answers = self.workers.fill(jobs)
        else:
            batch = workers.blank(self.fields)
            with workers.one_thread():
                answers = [self.filler(job, batch) for job in jobs]
        views = self.filler.sampling.views
        for array in batch.values():
            array[len(jobs) * views :] = 0  # left over from the batch before in shared memory
        faults = [answer for answer in answers if isinstance(answer, Exception)]
        if faults and self.on_error == "raise":
            raise faults[0]
        names = ["" if isinstance(answer, Exception) else answer for answer in answers]
        names += [""] * (self.plan.batch - len(names))
        return batch | {"id": [name for name in names for _ in range(views)], "faults": faults}

    def close(self) -> None:
        if self.workers:
            self.workers.close()
