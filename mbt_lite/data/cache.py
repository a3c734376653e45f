"""Cache decoded clips in files, for later epochs and other runs.

A clip of the micro-world takes milliseconds to render and far less to read: a grid of small
trainings shares the clips that the first one rendered. rgb is uint8 and spec float32, so a cached
clip is bit-exact; one of the micro-world takes 158 kB (with a float16 spectrogram 107 kB).

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
from mbt_lite.data.loader import Loader
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.source import ClipTask, ClipWriter, Fields, Rows, Source, batch_fields, zeros
from mbt_lite.data.workers import num_bytes, one_thread, why_no_workers

BATCH = 64  # clips that are rendered at a time
MANY = 500  # clips, from which on it is worth to start processes
INDEX = "clips.json"


class CachedSource(Source):
    """A source whose clips lie in the memory-mapped arrays [R, ...] of a folder."""

    def __init__(self, folder: Path, sampling: Sampling, source: Source):
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        self.folder, self.sampling, self.ids = folder, sampling, index["ids"]
        self.labels, self.notes, self.fingerprint = source.labels, source.notes, source.fingerprint
        self.num_auxiliary_classes = source.num_auxiliary_classes

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, index: int) -> str:
        return self.ids[index]

    def targets(self, index: int) -> np.ndarray:
        return _opened(self.folder / "labels.npy")[index * self.sampling.views]

    def write(self, index: int, out: Rows, sampling: Sampling, rng: np.random.Generator) -> str:
        """Copy one clip; return its id. ValueError if `sampling` is not that of the cache."""
        if sampling != self.sampling:
            raise ValueError(f"{self.folder} has clips of other sizes or windows than needed now.")
        rows = slice(index * sampling.views, (index + 1) * sampling.views)
        for name, array in out.items():
            array[:] = _opened(self.folder / f"{name}.npy")[rows]
        return self.ids[index]


def cached(source: Source, sampling: Sampling, folder: Path) -> CachedSource:
    """The source with its clips cached under `folder`; they are rendered now unless they exist.

    A digest of the source, the sampling and the first clip names the files, so that a change of the
    code is noticed. If several runs ask at once, one renders the clips and the others wait.
    ValueError if each epoch draws other windows, or the disk is too small.
    """
    if source.fingerprint is None:
        raise ValueError(
            "data.cache_dir is for clips that are the same in every epoch: those of the "
            "micro-world and of av_digits. From these files each epoch draws other windows; leave "
            "it out."
        )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _digest(source, sampling)
    with FileLock(folder / f".{path.name}.lock"):
        if not (path / INDEX).exists():
            _render(source, sampling, path)
    return CachedSource(path, sampling, source)


def _digest(source: Source, sampling: Sampling) -> str:
    """A digest of what decides the values of the clips."""
    clip = zeros(batch_fields(source, sampling, 1))
    with one_thread():
        result = ClipWriter(source, sampling, 0)(ClipTask(0, 0, 0), clip)
    if isinstance(result, Exception):
        raise result
    values = [source.fingerprint, to_dict(sampling), list(source.labels), result]
    digest = hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16)
    for name in sorted(clip):
        digest.update(clip[name].tobytes())
    return digest.hexdigest()


def _render(source: Source, sampling: Sampling, path: Path) -> None:
    """Render all clips in a temporary folder, which is renamed when it is complete."""
    fields = batch_fields(source, sampling, len(source))
    del fields["mask"]
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    _check_disk(temporary.parent, num_bytes(fields))
    temporary.mkdir()
    try:
        ids = _write_arrays(source, sampling, temporary, fields)
        (temporary / INDEX).write_text(json.dumps({"ids": ids}), encoding="utf-8")
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_arrays(source: Source, sampling: Sampling, folder: Path, fields: Fields) -> list[str]:
    """Write the arrays of all clips; return the ids of the clips."""
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.dtype(dtype), shape)
        for name, (shape, dtype) in fields.items()
    }
    parallel = len(source) >= MANY and not why_no_workers()
    processes = (os.cpu_count() or 1) if parallel else 0
    options = {"shuffle": False, "workers": processes}
    progress = tqdm(total=len(source), desc="clips to cache", unit="clip")
    ids: list[str] = []
    with progress, Loader(source, sampling, min(BATCH, len(source)), **options) as loader:
        for batch in loader:
            rows = int(batch["mask"].sum())
            start = len(ids) * sampling.views
            for name, array in arrays.items():
                array[start : start + rows] = batch[name][:rows]
            ids += batch["id"][: rows : sampling.views]
            progress.update(rows // sampling.views)
    return ids


def _check_disk(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(
            f"the clips to cache take {size / 2**30:.1f} GiB, and {folder} has "
            f"{free / 2**30:.1f} GiB left; take fewer with data.clips, or another folder."
        )


@lru_cache(maxsize=64)
def _opened(path: Path) -> np.ndarray:
    return np.asarray(np.load(path, mmap_mode="r"))
