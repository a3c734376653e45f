"""Run one side of a train-step comparison in its own process, to measure its memory.

    python -m benchmarks.side ours|usual NAME      # of train_step.CASES

compiles and runs one step, and prints "ready" and facts as JSON. Then it runs a step for every line
on its standard input and prints the seconds that took.
"""

import contextlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax

from benchmarks import train_step
from benchmarks.model import compiled, planned, usual_step
from benchmarks.reference import translated
from mbt_lite.config import Experiment
from mbt_lite.model.mbt import init_params
from mbt_lite.train import sharding, step
from mbt_lite.train.optimizer import make_optimizer


def main(which: str, name: str) -> None:
    with contextlib.suppress(OSError):  # if memory runs out, kill this program and no other
        Path("/proc/self/oom_score_adj").write_text("1000")
    jax.config.update("jax_enable_compilation_cache", False)  # compilation is timed, too
    config = replace(train_step.CASES[name], drop_path=0.0)
    experiment, mesh = train_step.experiment(config, 1, remat=False), sharding.make_mesh()
    batch = sharding.shard_batch(mesh, train_step.drawn_batch(experiment))
    if which == "ours":
        state = step.first_state(experiment, mesh)
        do = step.train_step(experiment, train_step.LABELS, mesh)
    else:
        state, do = usual_state(experiment), usual_step(experiment)
    do, compiling = compiled(do, state, batch)
    facts = {"compile_seconds": compiling, "bytes": planned(do)}
    state, _ = jax.block_until_ready(do(state, batch))
    print("ready", json.dumps(facts), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(do(state, batch))
        print(time.perf_counter() - start, flush=True)


def usual_state(experiment: Experiment) -> tuple:
    """Parameters and optimizer state for `usual_step`, from the same seed as ours."""
    config = experiment.model
    init = jax.jit(lambda key: translated(config, init_params(config, key)))
    params = init(jax.random.key(experiment.train.seed))
    return params, make_optimizer(experiment.train).init(params)


if __name__ == "__main__":
    main(*sys.argv[1:])
