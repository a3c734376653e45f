"""Measure complete train steps: clips per second, share of peak FLOP/s, memory."""

import statistics
import time
from collections.abc import Iterable
from dataclasses import replace

import jax
import numpy as np
from tqdm import tqdm

from mbt_lite.config import BASE, NONE, ClipConfig, Experiment, MBTConfig, TrainConfig
from mbt_lite.model.flops import model_cost
from mbt_lite.train import sharding, step

CASES = {
    "32 frames": replace(BASE, drop_path=0.3),
    "8 frames": replace(BASE, rgb_shape=(8, 224, 224), rgb_patch=(1, 16, 16), drop_path=0.3),
}
DTYPES = ("float32", "bfloat16")
LABELS = tuple(f"class {number}" for number in range(BASE.classes))


def measure(batch: int = 1, steps: int = 5, remat: bool = True, only: str = "") -> dict:
    """One row per geometry and number type, ready for JSON; `only` selects by a part of the name.

    A step has gradient, clipping and momentum but no augmentation, at the geometry of the released
    models with 527 classes. Seconds are the median of `steps` steps after a warm-up. MFU is the
    model's operations, three forward passes, over those of a large matrix product of the same
    number type in the same run.
    """
    mesh = sharding.make_mesh()
    results = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
    }
    results |= {"batch": batch, "steps": steps, "remat": remat, "rows": {}}
    cases = [(name, dtype) for name in CASES for dtype in DTYPES if only in f"{name} {dtype}"]
    if not cases:
        raise ValueError(f"no case holds {only!r}; there are {', '.join(CASES)} in {DTYPES}.")
    peaks = {dtype: sharding.peak_flops(dtype) for dtype in DTYPES}
    results["GFLOP/s of a matrix product"] = {name: peak / 1e9 for name, peak in peaks.items()}
    for name, dtype in tqdm(cases, desc="train steps", unit="case"):
        row = _row(experiment(replace(CASES[name], dtype=dtype), batch, remat), mesh, steps)
        row["mfu"] = row["flops"] / row["seconds"] / peaks[dtype]
        results["rows"][f"{name}, {dtype}"] = row
    return results


def experiment(model: MBTConfig, batch: int, remat: bool) -> Experiment:
    """The experiment of the released models, without augmentation."""
    train = TrainConfig(
        batch=batch,
        optimizer="momentum",
        learning_rate=0.5,
        weight_decay=0.0,
        label_smoothing=0.3,
        ema=0.0,
        remat=remat,
    )
    clip = ClipConfig(frames=model.rgb_shape[0], resize=224)
    return Experiment("bench", model, clip, augment=NONE, train=train)


def _row(experiment: Experiment, mesh, steps: int) -> dict:
    batch = drawn_batch(experiment)
    state = step.first_state(experiment, mesh)
    start = time.perf_counter()
    do = step.train_step(experiment, LABELS, mesh).lower(state, batch).compile()
    compiling = time.perf_counter() - start
    seconds = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        state, result = do(state, sharding.shard_batch(mesh, batch))
        jax.block_until_ready((state, result))
        seconds.append(time.perf_counter() - start)
    if not np.isfinite(float(result["loss"])):
        raise ValueError("the loss of the measured step is not finite (NaN or inf).")
    needed, median = do.memory_analysis(), statistics.median(seconds[1:])
    return {
        "seconds": median,
        "lowest and highest": [min(seconds[1:]), max(seconds[1:])],
        "clips a second": experiment.train.batch / median,
        "flops": 3 * experiment.train.batch * model_cost(experiment.model).flops,
        "seconds to compile": compiling,
        "bytes": needed.argument_size_in_bytes + needed.temp_size_in_bytes,
        "peak bytes of the device": _memory_used(),
    }


def _memory_used() -> int | None:
    """Peak bytes in use on the fullest local device; None where the devices do not report it."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [stats["peak_bytes_in_use"] for stats in statistics if "peak_bytes_in_use" in stats]
    return max(peaks, default=None)


def drawn_batch(experiment: Experiment) -> dict[str, np.ndarray]:
    """A batch of noise in the form of a loader's."""
    rng, rows, clip = np.random.default_rng(0), experiment.train.batch, experiment.clip
    side = (clip.size, clip.size)
    return {
        "rgb": rng.integers(0, 256, (rows, clip.frames, *side, 3), np.uint8),
        "spec": rng.normal(size=(rows, clip.spec_frames, clip.front_end.mels)).astype(np.float32),
        "labels": (rng.random((rows, len(LABELS))) < 0.01).astype(np.float32),
        "mask": np.ones(rows, np.float32),
        "valid_size": np.tile(np.int32(side), (rows, 1)),
    }


def table(results: dict) -> str:
    """The rows as a Markdown table."""
    peaks: Iterable = results["GFLOP/s of a matrix product"].items()
    speeds = ", ".join(f"{value:,.0f} GFLOP/s in {name}" for name, value in peaks)
    activations = "recomputed" if results["remat"] else "stored"
    lines = [
        f"{results['device']}, JAX {results['jax']}, batch {results['batch']}, activations "
        f"{activations}; a matrix product reaches {speeds}.",
        "",
        "| model | s a step (lowest-highest) | clips/s | MFU | GiB | s to compile |",
        "| --- " * 6 + "|",
    ]
    for name, row in results["rows"].items():
        low, high = row["lowest and highest"]
        lines.append(
            f"| {name} | {row['seconds']:.3g} ({low:.3g}-{high:.3g}) | {row['clips a second']:.3g} "
            f"| {row['mfu']:.0%} | {row['bytes'] / 2**30:.2f} | {row['seconds to compile']:.1f} |"
        )
    return "\n".join(lines)
