"""Estimate a run before it starts: shapes, parameters, memory, seconds per step."""

import time

import jax

from mbt_lite import paths
from mbt_lite.config import Experiment
from mbt_lite.data import datasets
from mbt_lite.model.flops import model_cost
from mbt_lite.train import sharding, step
from mbt_lite.train.setup import resolve

ROUNDS = 3  # timed steps, after one that is not timed


def dry_run(experiment: Experiment) -> dict:
    """What a run would take, from its first steps, ready for JSON; no run folder is written."""
    paths.keep_compilations(paths.cache_folder() / "compiled")
    resolved = resolve(experiment)
    experiment, source = resolved.experiment, resolved.source
    config, cost = experiment.train, model_cost(experiment.model)
    mesh = sharding.make_mesh(config.shards, config.batch // config.accumulate)
    with datasets.make_loader(experiment, source, True, **sharding.hosts()) as loader:
        start = time.perf_counter()
        train_step = step.compiled_step(experiment, source.labels, mesh, loader.fields)
        compiling = time.perf_counter() - start
        state = step.first_state(experiment, mesh, resolved.params())
        state, seconds, waited = _fastest_step(train_step, state, loader, mesh)
        shapes = sharding.batch_shapes(mesh, loader.fields)
    memory = train_step.memory_analysis()
    trained = step.trainable_params(state.params, config)
    return {
        "experiment": experiment.name,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
        "mesh": dict(mesh.shape),
        "clips": len(source),
        "classes": experiment.model.classes,
        "batch": {name: f"{x.dtype} {list(x.shape)}" for name, x in shapes.items()},
        "parameters": cost.parameters,
        "trained parameters": sum(leaf.size for leaf in jax.tree.leaves(trained)),
        "operations of a clip, forward": cost.flops,
        "MiB a device": {
            "state and batch": memory.argument_size_in_bytes >> 20,
            "more while computing": memory.temp_size_in_bytes >> 20,
        },
        "seconds to compile": round(compiling, 1),
        "seconds a step": round(seconds, 4),
        "of them waiting for data": round(waited, 4),
        "steps": config.steps,
        "hours in all, without scoring": round(config.steps * seconds / 3600, 2),
    }


def _fastest_step(train_step, state, loader, mesh) -> tuple[step.State, float, float]:
    """The state, seconds of the fastest step, and how long it waited for its batch."""
    times = []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        batch = next(loader)
        waited = time.perf_counter() - start
        batch.pop("id")
        state, metrics = train_step(state, sharding.shard_batch(mesh, batch))
        jax.block_until_ready(metrics)
        times.append((time.perf_counter() - start, waited))
    return state, *min(times[1:])
