"""Load batches of clips in an order that the seed decides; loading can resume at any batch.

R rows of a batch   T frames   N spectrogram rows   M mel bins   C classes
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import grain
import numpy as np

from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import ClipTask, ClipWriter, Source, batch_fields, zeros
from mbt_lite.data.workers import Workers, num_bytes, one_thread

AHEAD = 2  # batches that are prepared at a time
WINDOWS = 4  # windows of a clip that training draws, if all of them fit into memory

_Kept = tuple[str | Exception, dict[str, np.ndarray]]  # id, and all windows, of a clip

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

    If all clips fit into `memory` MiB, they are read once and kept in this process. In training,
    where windows are random, `WINDOWS` of each clip are drawn then, which the epochs take in turn;
    of clips that do not fit, each epoch draws new windows.
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
        self.views, self.batch, self.host = sampling.views, batch, host
        self.on_error, self.skipped = on_error, 0
        self.fields = batch_fields(source, sampling, batch)  # shape and data type of each array
        random = sampling.training and source.fingerprint is None
        windows = self.views * (WINDOWS if random else 1)
        size = num_bytes(batch_fields(source, replace(sampling, views=windows), len(source)))
        self.kept: dict[int, _Kept] | None = {} if size <= memory << 20 else None
        self.note, self.windows = "", 0  # random windows of a clip; 0: new ones in each epoch
        if self.kept is not None:
            self.note = f"all clips are kept in memory: {windows} windows each, {size >> 20} MiB."
            self.windows = WINDOWS if random else 0
            sampling = replace(sampling, views=windows)
        # as many rows as a batch has, whatever the number of windows that are read of a clip
        self.clips_at_once = max(batch * self.views // sampling.views, 1)
        self.read_fields = batch_fields(source, sampling, self.clips_at_once)
        self.write = ClipWriter(source, sampling, seed)
        self.workers = Workers(self.write, self.read_fields, workers, AHEAD) if workers else None
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
        own = [int(i) for i in indices[self.host * self.batch : (self.host + 1) * self.batch]]
        epoch = number // self.batches_per_epoch
        if self.kept is None:
            batch, results = self._read(own, epoch)
        else:
            batch, results = self._from_memory(own, epoch)
        for array in batch.values():
            array[len(own) * self.views :] = 0  # padding; shared memory holds an earlier batch
        results += [""] * (self.batch - len(own))
        errors = [result for result in results if isinstance(result, Exception)]
        ids = ["" if isinstance(result, Exception) else result for result in results]
        return batch | {
            "id": [clip_id for clip_id in ids for _ in range(self.views)],
            "errors": errors,
        }

    def _read(self, indices: Sequence[int], epoch: int) -> tuple[dict, list[str | Exception]]:
        """The arrays of these clips, and the id or error of each."""
        tasks = [ClipTask(position, index, epoch) for position, index in enumerate(indices)]
        if self.workers:
            return self.workers.fill(tasks)
        arrays = zeros(self.read_fields)
        with one_thread():
            return arrays, [self.write(task, arrays) for task in tasks]

    def _from_memory(self, indices: Sequence[int], epoch: int) -> tuple[dict, list]:
        """As `_read`, for a batch; clips that have not been read yet are, and kept."""
        batch, clips = zeros(self.fields), {i: self.kept[i] for i in indices if i in self.kept}
        missing = [index for index in indices if index not in clips]
        views = self.write.sampling.views
        for first in range(0, len(missing), self.clips_at_once):
            part = missing[first : first + self.clips_at_once]
            arrays, results = self._read(part, 0)
            for position, (index, result) in enumerate(zip(part, results, strict=True)):
                rows = slice(position * views, (position + 1) * views)
                clips[index] = result, {name: array[rows].copy() for name, array in arrays.items()}
                if not isinstance(result, Exception):
                    self.kept[index] = clips[index]
        for position, index in enumerate(indices):
            rows = slice(position * self.views, (position + 1) * self.views)
            first = epoch % self.windows * self.views if self.windows else 0
            for name, array in clips[index][1].items():
                batch[name][rows] = array[first : first + self.views]
        return batch, [clips[index][0] for index in indices]

    def state(self) -> dict[str, int]:
        """The position of the next batch, as JSON values; it does not depend on the workers."""
        return {"batches": self.iterator.get_state()["next_index"], **self.identity}

    def restore(self, state: dict[str, int]) -> None:
        """Resume where `state` was taken; ValueError if the order was a different one."""
        saved = {name: state.get(name) for name in self.identity}
        if saved != self.identity:
            raise ValueError(f"the data was at {saved}, but now is {self.identity}.")
        self.iterator.set_state({"next_index": state["batches"]})

    def close(self) -> None:
        """End the worker processes."""
        self.iterator.close()
        if self.workers:
            self.workers.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_) -> None:
        self.close()
