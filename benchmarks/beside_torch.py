"""Benchmark the full-size model beside `torch_mbt.py`: the same weights in PyTorch's idiom."""

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np

from benchmarks import model, train_step
from benchmarks.timing import Program, compare, row
from mbt_lite.config import MBTConfig
from mbt_lite.model.mbt import Clip, blank_clip, init_params

PROGRAM = str(Path(__file__).with_name("torch_mbt.py"))
TITLE = "PyTorch, fused attention"
ROUNDS = 3


def drawn(config: MBTConfig) -> tuple[dict, Clip]:
    """Random parameters, a head that is not zero among them, and a clip of noise."""
    params, key = init_params(config, jax.random.key(0)), jax.random.key(1)
    head = 0.02 * jax.random.normal(key, params["head"]["kernel"].shape)
    clip = jax.tree.map(lambda x: jax.random.normal(key, x.shape), blank_clip(config))
    return params | {"head": params["head"] | {"kernel": head}}, clip


def write(file: Path, config: MBTConfig, params: dict, clip: Clip, **settings) -> Path:
    """Write weights, clip and settings for `torch_mbt.py`; the clip's labels are all 0."""
    settings |= {name: getattr(config, name) for name in ("width", "heads", "mlp_dim", "depth")}
    settings |= {"fusion_layer": config.fusion_layer, "bottlenecks": config.bottlenecks}
    settings |= {"patches": {s: list(config.patch(s)) for s in config.streams}}
    settings |= {"positions": {s: params[f"{s}_positions"].shape[1] for s in config.streams}}
    settings |= {"classes": config.classes}
    arrays = {f"model.{name}": array for name, array in torch_state(config, params).items()}
    arrays |= {f"clip.{s}": np.moveaxis(getattr(clip, s), -1, 1) for s in config.streams}
    batch = len(clip[0])
    arrays |= {"labels": np.zeros((batch, config.classes), np.float32)}
    arrays |= {"config": np.array(json.dumps(settings))}
    np.savez(file, **arrays)
    return file


def torch_state(config: MBTConfig, params: dict) -> dict[str, np.ndarray]:
    """Our parameters under the names and in the layouts of `torch_mbt.MBT`."""
    state = _linear("head", params["head"]) | _norm("norm", params["final_norm"])
    state["bottleneck"] = params["bottleneck"]
    for s in config.streams:
        state |= {f"cls.{s}": params[f"{s}_cls"], f"positions.{s}": params[f"{s}_positions"]}
        kernel = params[f"{s}_embedding"]["kernel"].reshape(*config.patch(s), 3, config.width)
        state[f"embedding.{s}.weight"] = np.moveaxis(kernel, (-1, -2), (0, 1))
        state[f"embedding.{s}.bias"] = params[f"{s}_embedding"]["bias"]
        for layer in range(config.depth):
            block, name = params[f"{s}_block_{layer}"], f"blocks.{s}.{layer}"
            for norm in ("attention_norm", "mlp_norm"):
                state |= _norm(f"{name}.{norm}", block[norm])
            linear = block["attention"] | {n: block[n] for n in ("mlp_in", "mlp_out")}
            for part in ("qkv", "out", "mlp_in", "mlp_out"):
                state |= _linear(f"{name}.{part}", linear[part])
    return {name: np.ascontiguousarray(array, np.float32) for name, array in state.items()}


def _linear(name: str, own: dict) -> dict:
    return {f"{name}.weight": own["kernel"].T, f"{name}.bias": own["bias"]}


def _norm(name: str, own: dict) -> dict:
    return {f"{name}.weight": own["scale"], f"{name}.bias": own["bias"]}


def forward(name: str, place) -> dict | str:
    """Forward pass of one clip in this process, beside one in PyTorch's; the logits must agree."""
    config = replace(train_step.CASES[name], drop_path=0.0)
    params, clip = drawn(config)
    file = write(place.folder / "torch.npz", config, params, clip)
    ours, compiling = model.compiled(jax.jit(partial(model.logits, config)), params, clip)
    try:
        with Program(place.python, PROGRAM, "forward", str(file)) as other:
            theirs = np.array(other.facts["logits"])
            apart = float(np.abs(np.asarray(ours(params, clip)[0]) - theirs).max())
            if apart > 1e-4:
                raise ValueError(f"PyTorch's logits are {apart:.1e} apart from ours")
            result = compare(partial(ours, params, clip), other, TITLE, ROUNDS)
    except ValueError as error:
        return f"{error}; name a Python that has PyTorch with --python"
    return result | {"version": other.facts["torch"], "apart": apart}


def train(name: str, place) -> dict | str:
    """Train step of one clip beside PyTorch's, each in its own process, in turns."""
    config = replace(train_step.CASES[name], drop_path=0.0)
    settings = train_step.experiment(config, 1, remat=False).train
    settings = {n: getattr(settings, n) for n in ("learning_rate", "label_smoothing", "clip_norm")}
    file = write(place.folder / "torch.npz", config, *drawn(config), **settings)
    try:
        with (
            Program(sys.executable, "-m", "benchmarks.side", "ours", name) as ours,
            Program(place.python, PROGRAM, "step", str(file)) as other,
        ):
            rounds = [(ours().seconds, other().seconds) for _ in range(ROUNDS)]
            peaks = [ours.peak_bytes(), other.peak_bytes()]
    except ValueError as error:
        return f"{error}; name a Python that has PyTorch with --python"
    result = row(*zip(*rounds, strict=True), TITLE)
    return result | {"version": other.facts["torch"], "peak_bytes": peaks}


CASES = {f"train step, {name}, PyTorch": partial(train, name) for name in train_step.CASES}
CASES |= {f"forward, {name}, PyTorch": partial(forward, name) for name in train_step.CASES}
