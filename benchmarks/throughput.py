"""Measure how fast clips are read from records and from video files, and how much memory it takes.

Speeds are per second of processor time of all threads, so that they are per core and other programs
on the machine matter little.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks import tfdata
from mbt_lite import features, media
from mbt_lite.config import ClipConfig
from mbt_lite.data import extract, records, tables
from mbt_lite.data.loader import Loader
from mbt_lite.data.sampling import Sampling
from mbt_lite.data.sources import FileSource, Source, open_source

SECONDS, SIZE = 10, (256, 454)  # of the clips; pixels, height and width
LABELS = tuple(f"class {number}" for number in range(527))
VIDEOS, SHARDS, PER_SHARD = 4, 2, 16
BATCH = 4
ROUNDS = 5
CLIP = ClipConfig(front_end=features.FRONT_ENDS["linear-mel"])  # 32 of 250 frames, 8 s of audio


def measure(clips: int = 64, python: str | None = None, long: int = 0) -> dict:
    """Clips per second and core, the median of alternating rounds, ready for JSON.

    `python` is one with TensorFlow for the comparison with tf.data, which is otherwise left out
    unless this one has it. `long` more clips are read to measure whether memory grows.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = _make(Path(folder))
        from_records, from_files = open_source(folder + "/bench-*", labels=LABELS), _table(files)
        python = python or sys.executable
        missing = lacks_tensorflow(python)
        speeds = {"records": [], "mp4": [], "tf.data": []}
        for _ in tqdm(range(ROUNDS), desc="rounds", unit="round"):
            speeds["records"].append(_speed(from_records, clips))
            speeds["mp4"].append(_speed(from_files, clips // 2))
            if not missing:
                speeds["tf.data"].append(_tf_speed(python, Path(folder), clips))
        speeds = {name: rounds for name, rounds in speeds.items() if rounds}
        medians = {name: float(np.median(rounds)) for name, rounds in speeds.items()}
        results = {"clips a second and core": medians, "rounds": speeds}
        if missing:
            results["left out"] = missing
        else:
            ratios = np.divide(speeds["records"], speeds["tf.data"])
            results["records over tf.data"] = _spread(ratios)
        return results | ({"memory": _memory(from_records, long)} if long else {})


def _spread(ratios: np.ndarray) -> dict[str, float]:
    values = np.median(ratios), ratios.min(), ratios.max()
    return dict(zip(("median", "lowest", "highest"), map(float, values), strict=True))


# ---- what is read ----


def _make(folder: Path) -> list[Path]:
    """Write video files, and shards of records from them as `mbt-lite prepare` does."""
    settings, rng = extract.Settings(CLIP.front_end, LABELS), np.random.default_rng(0)
    files = [folder / f"{number}.mp4" for number in range(VIDEOS)]
    for file in files:
        write_film(file, rng, SIZE)
    examples = [extract.example(row, settings) for row in _table(files).rows]
    for number in range(SHARDS):
        named = [replace(examples[i % VIDEOS], id=f"{number} {i}") for i in range(PER_SHARD)]
        records.write_shard(folder / records.shard_name("bench", number, SHARDS), named)
    return files


def write_film(path: Path, rng: np.random.Generator, size: tuple[int, int]) -> None:
    """Write a video of `SECONDS` at 25 frames/s: a drifting texture, and noise as audio."""
    frame_size = _texture(rng, size)
    frames = np.stack([np.roll(frame_size, (t // 2, 3 * t), (0, 1)) for t in range(25 * SECONDS)])
    media.write(path, frames, 25.0, rng.normal(0, 0.1, SECONDS * media.RATE).astype(np.float32))


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A random image uint8 [H, W, 3] with detail at all scales."""
    height, width = size
    total = np.full((height, width, 3), 128.0)
    for cells in (4, 16, 64, 128):
        for channel in range(3):
            small = Image.fromarray(rng.normal(0, 60 / cells**0.5, (cells, 2 * cells)).astype("f4"))
            total[..., channel] += small.resize((width, height), Image.Resampling.BICUBIC)
    return total.clip(0, 255).astype(np.uint8)


def _table(files: list[Path]) -> FileSource:
    rows = [tables.Annotation(f.stem, f, 0.0, float(SECONDS), LABELS[:1]) for f in files]
    return FileSource(tables.AnnotationTable(rows, list(LABELS)))


# ---- how fast ----


def _loader(source: Source) -> Loader:
    loader = Loader(source, Sampling(CLIP, training=True), BATCH, epochs=None)
    next(loader)
    return loader


def _speed(source: Source, clips: int) -> float:
    loader = _loader(source)
    start = time.process_time()
    for _ in range(clips // BATCH):
        next(loader)
    return clips // BATCH * BATCH / (time.process_time() - start)


def lacks_tensorflow(python: str) -> str | None:
    """The reason why there is no comparison with tf.data, or None if there is one."""
    command = [
        python,
        "-c",
        "import importlib.util as u, sys; sys.exit(not u.find_spec('tensorflow'))",
    ]
    try:
        absent = subprocess.run(command, capture_output=True).returncode
    except OSError:
        raise ValueError(f"--python {python} is no Python that can be run.") from None
    return f"{python} has no TensorFlow; name one that has with --python" if absent else None


def _tf_speed(python: str, folder: Path, clips: int) -> float:
    shards = [str(folder / records.shard_name("bench", n, SHARDS)) for n in range(SHARDS)]
    height, width = Sampling(CLIP, training=True).frame_size
    numbers = (clips, BATCH, CLIP.frames, CLIP.stride, CLIP.spec_frames, height, width, len(LABELS))
    ran = subprocess.run(
        [python, tfdata.__file__, *map(str, numbers), *shards],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
    )
    if ran.returncode:
        raise ValueError(f"tf.data in {python}: {ran.stderr.strip().splitlines()[-1]}")
    return clips // BATCH * BATCH / float(ran.stdout)


# ---- how much memory ----


def _memory(source: Source, clips: int) -> dict:
    """Memory of this process in MiB, at ten points of a long run."""
    loader, steps = _loader(source), clips // BATCH
    points = {round(steps * part / 10) for part in range(11)}
    held = {}
    for step in tqdm(range(steps + 1), desc="memory", unit="batch"):
        if step in points:
            held[step * BATCH] = _resident()
        next(loader)
    return {"MiB after so many clips": held, "grown": held[max(held)] - held[sorted(held)[1]]}


def _resident() -> float:
    """MiB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def table(results: dict) -> str:
    """The results as text."""
    speeds = results["clips a second and core"]
    lines = [
        f"from {name:8} {speed:6.1f} clips a second and core" for name, speed in speeds.items()
    ]
    if "left out" in results:
        lines.append(f"no comparison with tf.data: {results['left out']}")
    else:
        lines.append("records over tf.data: {median:.2f} ({lowest:.2f}-{highest:.2f})".format(
            **results["records over tf.data"]
        ))  # fmt: skip
    if "memory" in results:
        held = results["memory"]["MiB after so many clips"]
        lines += [f"after {clips:6} clips {size:7.1f} MiB" for clips, size in held.items()]
    return "\n".join(lines)
