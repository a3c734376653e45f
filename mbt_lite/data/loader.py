"""Load batches of clips in an order that the seed decides; loading can resume at any batch.

R rows of a batch   T frames   N spectrogram rows   M mel bins   C classes
"""

import logging
from collections.abc import Iterator, Sequence

import grain
import numpy as np

from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import ClipTask, ClipWriter, Source, batch_fields, zeros
from mbt_lite.data.workers import Workers, num_bytes, one_thread

AHEAD = 2  # batches that are prepared at a time
WINDOWS = 4  # windows of a clip that training draws, if all of them fit into memory

_Kept = tuple[str, dict[str, np.ndarray]]  # the id of a clip, and its rows in a batch's arrays

log = logging.getLogger(__name__)


class Loader:
    """Iterate over batches of a source; the order depends on the seed only.

    A batch is a dictionary: rgb uint8 [R, T, H, W, 3], spec float32 [R, N, M] (log-mel, not
    standardized), labels float32 [R, C], mask float32 [R] (1 for clips, 0 for padding), id, a list
    of R names; in training also valid_size int32 [R, 2], the height and width of the video in the
    upper left of its padded frames. R is `batch` times the windows of each clip.

    Each of `hosts` processes loads its part of every batch: together they load each clip once per
    epoch, in equally many batches. With `workers`, that many processes read ahead; batches do not
    depend on their number. A clip that cannot be used raises its error, or with on_error="skip"
    becomes a masked row: it is logged and counted in `skipped`.

    If all clips fit into `memory` MiB, their windows are kept in this process and read only once.
    In training, where windows are random, `WINDOWS` of each clip are kept, which the epochs take in
    turn; of clips that do not fit, each epoch draws new windows.
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
        memory: int = 0,
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
        random = sampling.training and source.fingerprint is None
        self.windows = WINDOWS if random else 1  # of each clip; 0: new ones in each epoch
        size = num_bytes(batch_fields(source, sampling, len(source))) * self.windows
        self.kept: dict[tuple[int, int], _Kept] | None = {} if size <= memory << 20 else None
        self.note = f"all clips are kept in memory: {self.windows} windows each, {size >> 20} MiB."
        if self.kept is None:
            self.windows, self.note = 0 if random else 1, ""
        self.write, self.batch, self.host = ClipWriter(source, sampling, seed), batch, host
        self.views, self.on_error, self.skipped = sampling.views, on_error, 0
        self.fields = batch_fields(source, sampling, batch)  # shape and data type of each array
        self.workers = Workers(self.write, self.fields, workers, AHEAD) if workers else None
        # what decides the order, for all hosts together
        self.identity = {
            "clips": len(source),
            "batch": batch * hosts,
            "seed": seed,
            "shuffle": int(shuffle),
            "windows": self.windows,
        }
        order = grain.MapDataset.range(len(source))
        order = order.shuffle(seed=seed) if shuffle else order
        order = order.batch(batch * hosts, batch_fn=list)  # the last of an epoch may be shorter
        self.batches_per_epoch = len(order)
        dataset = order.repeat(epochs).map_with_index(self._load)
        ahead = AHEAD if workers else 0
        options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
        self.length = len(dataset)
        self.iterator = iter(dataset.to_iter_dataset(options))

    def start(self) -> None:
        """Begin to read ahead before the first batch is needed."""
        self.iterator.start_prefetch()

    def __len__(self) -> int:
        """All batches, counted from the first one."""
        return self.length

    def __iter__(self) -> Iterator[dict]:
        return self

    def __next__(self) -> dict:
        batch = next(self.iterator)
        for error in batch.pop("errors"):
            if self.on_error == "raise":
                raise error
            self.skipped += 1
            log.warning("clip left out, number %d: %s", self.skipped, error)
        return batch

    def _load(self, number: int, indices: Sequence[int]) -> dict:
        """Batch `number` of this host, of the clips of all hosts; called from several threads."""
        own = indices[self.host * self.batch : (self.host + 1) * self.batch]
        epoch = number // self.batches_per_epoch
        draw = epoch % self.windows if self.windows else epoch
        tasks = [ClipTask(position, int(index), draw) for position, index in enumerate(own)]
        batch, results = self._fill(tasks)
        for array in batch.values():
            array[len(tasks) * self.views :] = 0  # padding; shared memory holds an earlier batch
        results += [""] * (self.batch - len(tasks))
        errors = [result for result in results if isinstance(result, Exception)]
        ids = ["" if isinstance(result, Exception) else result for result in results]
        return batch | {
            "id": [clip_id for clip_id in ids for _ in range(self.views)],
            "errors": errors,
        }

    def _fill(self, tasks: Sequence[ClipTask]) -> tuple[dict, list[str | Exception]]:
        """A batch with these clips, and the id or error of each; kept ones are not read again."""
        kept = {task: self.kept.get(task[1:]) for task in tasks} if self.kept else {}
        missing = [task for task in tasks if not kept.get(task)]
        if self.workers and missing:
            batch, results = self.workers.fill(missing)
        else:
            batch = zeros(self.fields)
            with one_thread():
                results = [self.write(task, batch) for task in missing]
        read = dict(zip(missing, results, strict=True))
        for task in tasks:
            rows = slice(task.position * self.views, (task.position + 1) * self.views)
            if task not in read:
                read[task], arrays = kept[task]
                for name, array in arrays.items():
                    batch[name][rows] = array
            elif self.kept is not None and isinstance(read[task], str):
                arrays = {name: array[rows].copy() for name, array in batch.items()}
                self.kept[task[1:]] = read[task], arrays
        return batch, [read[task] for task in tasks]

    def state(self, batch: int | None = None) -> dict[str, int]:
        """The position of the next batch, or of `batch`, counted from 0, as JSON values.

        It does not depend on the number of workers.
        """
        number = self.iterator.get_state()["next_index"] if batch is None else batch
        return {"batches": number, **self.identity}

    def restore(self, state: dict[str, int]) -> None:
        """Resume where `state` was taken; ValueError if the order was a different one."""
        saved = {name: state.get(name) for name in self.identity}
        if saved != self.identity:
            raise ValueError(f"the data was at {saved}, but now is {self.identity}.")
        self.seek(state["batches"])

    def seek(self, batch: int) -> None:
        """Resume at this batch, counted from 0."""
        self.iterator.set_state({"next_index": batch})

    def close(self) -> None:
        """End the worker processes."""
        self.iterator.close()
        if self.workers:
            self.workers.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_) -> None:
        self.close()
