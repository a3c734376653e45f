"""Speed on this machine, each figure beside a named alternative timed in the same run."""

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mbt_lite import features, pace, sharding, world
from mbt_lite.config import BASE, WORLD_CLIP, FrontEnd, MBTConfig
from mbt_lite.inference import Classifier, load
from mbt_lite.model import MBT, attention_rows, blank_clip, init_params
from mbt_lite.reference import ReferenceMBT, translated

PASSES = {"forward": 1, "gradient": 3}  # forward passes that a task costs
ROOM = 12 << 30  # bytes that a program may need


def measure(rounds: int = 7) -> dict[str, dict]:
    """Per part: median seconds of ours and of the alternative, taken in turn, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        started = Path(folder, "started")
        parts = (*_front_end(), *_world(Path(folder)), *_answers(load()), *_start_up(started))
        return {
            name: compare(ours, other, what, rounds)
            for name, ours, what, other in tqdm(parts, desc="parts", unit="part")
        }


def measure_attention(config: MBTConfig = BASE, rounds: int = 3) -> dict[str, dict]:
    """What the rows of the bottleneck cost beside the plain forward pass of one clip.

    `more_bytes` is how much more memory XLA plans for the pass with rows, results counted.
    """
    params, clip = init_params(config, jax.random.key(0)), blank_clip(config)

    def plain(params, clip):
        return MBT(config).apply({"params": params}, clip)

    with_rows = attention_rows.lower(MBT(config), params, clip).compile()
    without = jax.jit(plain).lower(params, clip).compile()
    row = compare(
        lambda: with_rows(params, clip),
        lambda: without(params, clip),
        "the plain forward pass",
        rounds,
    )
    row["more_bytes"] = _planned(with_rows) - _planned(without)
    return {"a clip with the rows of its bottleneck": row}


def measure_model(only: str = "", rounds: int = 3) -> dict[str, dict]:
    """Forward pass and gradient of one clip at full size beside `reference.ReferenceMBT`.

    Weights and answers are the same on both sides. `of_peak` is ours as a share of what a large
    matrix product reaches, on the mean of just before and just after; `bytes` and `compile_seconds`
    are [ours, the other's]. `only` picks the cases that hold it. What would take more than `ROOM`
    is left out, and said.
    """
    names = {f"{task}, {name}": (task, name) for task in PASSES for name in pace.CASES}
    asked = {name: case for name, case in names.items() if only in name}
    if not asked:
        raise ValueError(f"no case holds {only!r}; there are {'; '.join(names)}.")
    found = {}
    for name, (task, geometry) in tqdm(asked.items(), desc="model", unit="case"):
        row = _model_row(replace(pace.CASES[geometry], drop_path=0.0), task, rounds)
        if max(row["bytes"]) > ROOM:
            needs = f"{max(row['bytes']) / 2**30:.1f} GiB"
            tqdm.write(f"{name}: left out, the usual formulation needs {needs}.", sys.stderr)
        else:
            found[name] = row
    return found


def _model_row(config: MBTConfig, task: str, rounds: int) -> dict:
    """One case; sizes and seconds of compilation only, where one of the two takes too much."""
    params, key = init_params(config, jax.random.key(0)), jax.random.key(1)
    clip = jax.tree.map(lambda x: jax.random.normal(key, x.shape), blank_clip(config))
    theirs = translated(config, params)
    ours, first = _compiled(
        lambda p, x: MBT(config).apply({"params": p}, x).logits, task, params, clip
    )
    other, second = _compiled(
        lambda p, x: ReferenceMBT(config).apply({"params": p}, x), task, theirs, clip
    )
    row = {"bytes": [_planned(ours), _planned(other)], "compile_seconds": [first, second]}
    if max(row["bytes"]) > ROOM:
        return row
    usual, before = "the usual formulation", sharding.peak_flops()
    row |= compare(lambda: ours(params, clip), lambda: other(theirs, clip), usual, rounds)
    peak = (before + sharding.peak_flops()) / 2
    return row | {"of_peak": PASSES[task] * config.cost().flops / row["seconds"] / peak}


def _compiled(call: Callable, task: str, params: dict, clip) -> tuple[Callable, float]:
    """The program of a call, or of its gradient, and the seconds that its compilation took."""
    asked = call if task == "forward" else jax.grad(lambda p, x: jnp.sum(call(p, x) ** 2))
    start = time.perf_counter()
    made = jax.jit(asked).lower(params, clip).compile()
    return made, time.perf_counter() - start


def _planned(compiled) -> int:
    """Bytes that a compiled program needs besides what it is given."""
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def compare(ours: Callable, other: Callable, what: str, rounds: int) -> dict:
    """Medians of two calls that alternate, after one warm-up each; `ratio` above 1: ours faster.

    JAX gives a result back before it is computed, so the warm-up, too, is waited for.
    """
    _seconds(ours), _seconds(other)
    times = np.array([[_seconds(ours), _seconds(other)] for _ in repeat(None, rounds)])
    mine, theirs = np.median(times, axis=0)
    ratios = times[:, 1] / times[:, 0]
    return {
        "seconds": float(mine),
        "alternative": what,
        "alternative_seconds": float(theirs),
        "ratio": float(np.median(ratios)),
        "spread": [float(ratios.min()), float(ratios.max())],
    }


def _seconds(call: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _front_end():
    """Log-mels of 32 waves of 8 s, one by one and jitted, against librosa in one batch."""
    if importlib.util.find_spec("librosa") is None:
        print("log-mel: left out, librosa is not installed.", file=sys.stderr)
        return
    front = WORLD_CLIP.front_end
    waves = np.random.default_rng(0).normal(0, 0.1, (32, 8 * front.rate)).astype(np.float32)
    other = "librosa, in one batch", lambda: librosa_log_mels(waves, front)
    yield (
        "log-mel, 32 x 8 s",
        lambda: [features.log_mel(wave, front) for wave in waves],
        *other,
    )
    yield "log-mel, 32 x 8 s, jitted", lambda: features.log_mels(waves, front), *other


def librosa_log_mels(waves: np.ndarray, front: FrontEnd) -> np.ndarray:
    """[..., N, M] of waves [..., S]: librosa's `features.log_mels`, without pre-emphasis."""
    import librosa

    hop, rows = front.hop_samples, -(-waves.shape[-1] // front.hop_samples)
    # librosa centres a short window in a long transform, so the wave begins that much later.
    lead = front.lead_samples + (front.fft - front.window_samples) // 2
    room = max((rows - 1) * hop + front.fft - waves.shape[-1] - lead, 0)
    energy = librosa.feature.melspectrogram(
        y=np.pad(waves, [(0, 0)] * (waves.ndim - 1) + [(lead, room)]),
        sr=front.rate,
        n_fft=front.fft,
        hop_length=hop,
        win_length=front.window_samples,
        window=front.taper,
        center=False,
        power=front.power,
        n_mels=front.mels,
        fmin=front.low,
        fmax=front.high,
        htk=True,
        norm=None,
    )
    return np.log(energy.swapaxes(-1, -2)[..., :rows, :] + np.float32(front.offset))


def _world(folder: Path):
    """16 clips of the micro-world made on the fly, against the same clips read from mp4 files."""
    world.render([world.scene(0, i) for i in range(16)], folder)
    files = [folder / f"world_{i:04d}.mp4" for i in range(16)]
    yield (
        "16 world clips with features",
        lambda: [world.sample(world.scene(0, i), WORLD_CLIP)["spec"] for i in range(16)],
        "read from mp4",
        lambda: [features.read_views(file, WORLD_CLIP)[0].spec for file in files],
    )


def _answers(classifier: Classifier):
    """32 clips through the embedded model in one batch, against one by one."""
    samples = [world.sample(world.scene(1, i), classifier.clip_config) for i in range(32)]
    rgb, spec = (np.stack([sample[key] for sample in samples]) for key in ("rgb", "spec"))
    clip = features.normalise(rgb, spec, classifier.clip_config.front_end)
    singles = [jax.tree.map(lambda x, i=i: jnp.asarray(x[i : i + 1]), clip) for i in range(32)]
    yield (
        "32 clips answered in one batch",
        lambda: classifier.logits(clip),
        "one by one",
        lambda: [classifier.logits(single) for single in singles],
    )


def _start_up(folder: Path):
    """From nothing to the package, and to the answer for one file, against imports alone."""
    world.render([world.scene(1, 0)], folder)
    command = ["-m", "mbt_lite", "predict", str(next(folder.glob("*.mp4")))]
    yield (
        "a fresh Python with mbt_lite imported",
        partial(_python, "-c", "import mbt_lite"),
        "with jax imported",
        partial(_python, "-c", "import jax"),
    )
    yield (
        "mbt-lite predict, one clip, cold",
        partial(_python, *command),
        "with jax, flax and av imported",
        partial(_python, "-c", "import jax, flax.linen, av"),
    )


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def table(measured: dict[str, dict]) -> str:
    """The figures as a Markdown table."""
    lines = ["| what | ours | alternative | ratio (lowest-highest) |", "| --- | --- | --- | --- |"]
    for name, row in measured.items():
        low, high = row["spread"]
        lines.append(
            f"| {name} | {row['seconds'] * 1e3:.1f} ms "
            f"| {row['alternative']}: {row['alternative_seconds'] * 1e3:.1f} ms "
            f"| {row['ratio']:.2f} ({low:.2f}-{high:.2f}) |"
        )
        if "of_peak" in row:
            mine, theirs = (size / 2**30 for size in row["bytes"])
            compiling = row["compile_seconds"]
            lines.append(
                f"| its share of a large matrix product's speed; memory; compilation "
                f"| {row['of_peak']:.0%}; {mine:.2f} GiB; {compiling[0]:.1f} s "
                f"| {theirs:.2f} GiB; {compiling[1]:.1f} s | |"
            )
        if "more_bytes" in row:
            lines.append(
                f"| its memory beside the alternative | {row['more_bytes'] / 1e6:+.1f} MB |"
            )
    return "\n".join(lines)
