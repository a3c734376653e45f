"""Estimate a run before it starts: shapes, parameters, memory, seconds per step."""

import time

import jax

from mbt_lite import paths
from mbt_lite.config import Experiment
from mbt_lite.data import datasets
from mbt_lite.model.flops import model_cost
from mbt_lite.train import sharding, step
from mbt_lite.train.setup import resolve

ROUNDS = 3  # steps that are timed, after one that is not


def dry_run(experiment: Experiment) -> dict:
    """What the first steps of a run show, ready for JSON; no folder of a run is written."""
    paths.keep_compilations(paths.cache_folder() / "compiled")
    begun = resolve(experiment)
    experiment, labels = begun.experiment, tuple(begun.source.labels)
    config = experiment.train
    mesh = sharding.make_mesh(config.shards, config.batch // config.accumulate)
    with datasets.make_loader(experiment, begun.source, True, **sharding.hosts()) as loader:
        wanted = step.abstract_state(experiment, mesh)
        shapes = sharding.batch_shapes(mesh, loader.fields)
        start = time.perf_counter()
        do = step.train_step(experiment, labels, mesh).lower(wanted, shapes).compile()
        compiling = time.perf_counter() - start
        state = step.first_state(experiment, mesh, begun.params())
        seconds, waited = _timed(do, state, loader, mesh)
    steps, used = experiment.train.steps, do.memory_analysis()
    return {
        "experiment": experiment.name,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
        "mesh": dict(mesh.shape),
        "clips": len(begun.source),
        "classes": experiment.model.classes,
        "batch": {name: f"{x.dtype} {list(x.shape)}" for name, x in shapes.items()},
        "parameters": model_cost(experiment.model).parameters,
        "trained parameters": _size(step.trainable_params(wanted.params, experiment.train)),
        "operations of a clip, forward": model_cost(experiment.model).flops,
        "bytes a device": {
            "state and batch": used.argument_size_in_bytes,
            "more while computing": used.temp_size_in_bytes,
        },
        "seconds to compile": round(compiling, 1),
        "seconds a step": round(seconds, 4),
        "of them waiting for data": round(waited, 4),
        "steps": steps,
        "hours in all, without scoring": round(steps * seconds / 3600, 2),
    }


def _timed(do, state, loader, mesh) -> tuple[float, float]:
    """Seconds of the fastest step, and how long it waited for its batch."""
    found = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        batch = next(loader)
        waited = time.perf_counter() - start
        batch.pop("id")
        state, result = do(state, sharding.shard_batch(mesh, batch))
        jax.block_until_ready(result)
        found.append((time.perf_counter() - start, waited))
    return min(found[1:])


def _size(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def words(found: dict) -> str:
    """The same as lines to read."""
    lines = []
    for name, value in found.items():
        if name == "bytes a device":
            parts = [f"{size / 2**20:,.0f} MiB for {what}" for what, size in value.items()]
            lines.append(f"{'memory a device':32} {', '.join(parts)}")
        elif name == "batch":
            lines += [f"{'batch ' + key:32} {shape}" for key, shape in value.items()]
        else:
            lines.append(f"{name:32} {value:,}" if isinstance(value, int) else f"{name:32} {value}")
    return "\n".join(lines)
