"""Cache decoded clips in files, for later epochs and other runs.

A clip of the micro-world takes milliseconds to make and far less to read: a grid of small trainings
shares what the first one made. rgb is uint8 and spec float32, so that a kept clip is the clip, bit
by bit; one of the micro-world takes 158 kB (with the spectrogram in float16 it would be 107 kB).

R rows: V windows for each of the clips, one after the other
"""

import hashlib
import json
import os
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from mbt_lite.config import to_dict
from mbt_lite.data import workers
from mbt_lite.data.filler import (
    BatchMaker,
    Job,
    Rows,
    Source,
)
from mbt_lite.data.loader import Loader
from mbt_lite.data.sampling import Sampling

BATCH = 64  # clips that are made at a time
WORTH = 500  # clips, from which on it is worth to start processes
INDEX = "clips.json"


class CachedSource:
    """A source whose clips lie in the memory-mapped arrays [R, ...] of a folder."""

    def __init__(self, folder: Path, sampling: Sampling, source: Source):
        told = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        self.folder, self.sampling = folder, sampling
        self.labels, self.notes = source.labels, source.notes
        self.num_auxiliary_classes = source.num_auxiliary_classes
        self.made_of, self.ids = source.made_of, told["ids"]

    def __len__(self) -> int:
        return len(self.ids)

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Copy one clip; its id. ValueError where clips are asked for in another form."""
        if sampling != self.sampling:
            raise ValueError(f"{self.folder} keeps clips in another form than is asked for now.")
        rows = slice(index * sampling.views, (index + 1) * sampling.views)
        for name, array in out.items():
            array[:] = _opened(self.folder / f"{name}.npy")[rows]
        return self.ids[index]


def cached(
    source: Source, sampling: Sampling, folder: Path, processes: int | None = None
) -> CachedSource:
    """The source with its clips kept under `folder`; they are made now unless they are there.

    What decides the values names the files: source, form, and the first clip itself, which tells
    when the code has changed. Several runs may ask at once: one makes the clips, and the others
    wait. ValueError where each epoch draws the clips anew, or the disk has no room for them.
    """
    if source.made_of is None:
        raise ValueError(
            "data.keep is for clips that are the same in every epoch: those of the micro-world and "
            "of av_digits. From these files something is drawn each time; leave it out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / _digest(source, sampling)
    with FileLock(folder / f".{place.name}.lock"):
        if not (place / INDEX).exists():
            _make(source, sampling, place, processes)
    return CachedSource(place, sampling, source)


def _digest(source: Source, sampling: Sampling) -> str:
    """A name for what decides the values."""
    filler = BatchMaker(source, sampling, 0)
    first = workers.blank(filler.fields(1))
    with workers.one_thread():
        answer = filler(Job(0, 0, 0), first)
    if isinstance(answer, Exception):
        raise answer
    told = [source.made_of, to_dict(sampling), list(source.labels), answer]
    digest = hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=16)
    for name in sorted(first):
        digest.update(first[name].tobytes())
    return digest.hexdigest()


def _make(source: Source, sampling: Sampling, place: Path, processes: int | None) -> None:
    """Make all clips in a folder of another name, which is renamed when it is whole."""
    if processes is None:
        processes = (os.cpu_count() or 1) if len(source) >= WORTH else 0
    fields = BatchMaker(source, sampling, 0).fields(len(source))
    del fields["mask"]
    partial = place.with_name(f".{place.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    _refuse_full(partial.parent, workers.size(fields))
    partial.mkdir()
    try:
        ids = _fill(source, sampling, partial, fields, processes)
        (partial / INDEX).write_text(json.dumps({"ids": ids}), encoding="utf-8")
        partial.rename(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _fill(source: Source, sampling: Sampling, folder: Path, fields, processes: int) -> list[str]:
    """Write the arrays of all clips; their ids."""
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype(kind), shape)
        for name, (shape, kind) in fields.items()
    }
    options = {"shuffle": False, "workers": processes}
    bar = tqdm(total=len(source), desc="clips to keep", unit="clip")
    ids: list[str] = []
    with bar, Loader(source, sampling, min(BATCH, len(source)), **options) as loader:
        for batch in loader:
            there = int(batch["mask"].sum())
            first = len(ids) * sampling.views
            for name, array in arrays.items():
                array[first : first + there] = batch[name][:there]
            ids += batch["id"][: there : sampling.views]
            bar.update(there // sampling.views)
    return ids


def _refuse_full(folder: Path, size: int) -> None:
    room = shutil.disk_usage(folder).free
    if size > room:
        raise ValueError(
            f"the clips to keep take {size / 2**30:.1f} GiB, and {folder} has {room / 2**30:.1f} "
            "GiB left; take fewer with data.clips, or another folder."
        )


@lru_cache(maxsize=64)
def _opened(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r"))
