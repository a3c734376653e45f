"""A tiny run as a program of its own, for tests that kill it, stop it, or run it on other devices.

    python runner.py WORKDIR [--steps N] [--devices N] [--shards N] [--stop-at N]
                             [--port N --processes N --process N] [--save-every N] [--depth N] ...

prints one line of JSON at the end, see `summary`.
"""

import argparse
import hashlib
import json
import os
import signal
import sys

NUMBERS = {"steps": 12, "devices": 1, "shards": 1, "accumulate": 1, "stop_at": 0, "port": 0}
NUMBERS |= {"processes": 1, "process": 0, "save_every": 2, "evaluate_clips": 8, "depth": 2}
NUMBERS |= {"evaluate_every": 0, "workers": 0, "keep_checkpoints": 2}


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir")
    for name, default in NUMBERS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    return parser.parse_args()


def experiment(**options):
    """The tiny experiment, with options as they are called on the command line."""
    from dataclasses import replace

    from mbt_lite import configs
    from mbt_lite.config import AugmentConfig, DataConfig, TrainConfig

    options = argparse.Namespace(**NUMBERS | options)
    base = configs.world.experiment()
    model = replace(
        base.model,
        width=16,
        heads=2,
        mlp_dim=16,
        depth=options.depth,
        fusion_layer=1,
        drop_path=0.2,
    )
    settings = {name: getattr(options, name) for name in ("steps", "shards", "accumulate")}
    settings |= {"save_every": options.save_every, "evaluate_every": options.evaluate_every}
    train = TrainConfig(
        batch=8,
        warmup=2,
        log_every=1,
        learning_rate=0.02,
        optimizer="momentum",
        weight_decay=0.0,
        evaluate_clips=options.evaluate_clips,
        keep_checkpoints=options.keep_checkpoints,
        **settings,
    )
    data = DataConfig(workers=options.workers, test=None)
    augment = AugmentConfig(time_masks=1, mel_masks=1, mixup=0.3, mixmod=True)
    return replace(base, model=model, train=train, data=data, augment=augment)


def summary(run) -> dict:
    """Whether a run finished, its losses, and a digest of its weights."""
    import jax
    import numpy as np

    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(run.classifier.params)]
    digest = hashlib.blake2b(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()
    losses = [row["loss"] for row in run.records if "loss" in row]
    sums = [float(np.abs(leaf).sum()) for leaf in leaves]
    return {"finished": run.finished, "losses": losses, "digest": digest, "sums": sums}


def main() -> None:
    options = arguments()
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={options.devices}"
    from mbt_lite.train import loop, sharding
    from mbt_lite.train.signals import exit_on_signal

    if options.processes > 1:
        sharding.connect(f"127.0.0.1:{options.port}", options.processes, options.process)

    def look(rows):
        print(json.dumps(rows[-1]), flush=True)
        if options.stop_at and rows[-1]["step"] == options.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with exit_on_signal():
        run = loop.fit(experiment(**vars(options)), options.workdir, live=look)
    print(json.dumps(summary(run)))
    sys.exit(0 if run.finished else 75)


if __name__ == "__main__":
    main()
