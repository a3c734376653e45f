"""Twenty steps on 1, 2 and 8 devices of one machine, in several layouts, as a program of its own.

Prints JSON: {layout: losses}.
"""

import json
import os
from dataclasses import replace

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import AxisType, Mesh, PartitionSpec  # noqa: E402

from mbt_lite.config import WORLD, WORLD_CLIP, AugmentConfig, Experiment, TrainConfig  # noqa: E402
from mbt_lite.train import sharding, step  # noqa: E402

LABELS = tuple(f"class {number}" for number in range(6))
MODEL = replace(
    WORLD, classes=6, width=32, heads=2, mlp_dim=64, depth=2, fusion_layer=1, bottlenecks=2
)
CHANGES = AugmentConfig(time_masks=1, mel_masks=1, mixup=0.3, mixmod=True)
LAYOUTS = {  # devices, shards, parts of a batch
    "1": (1, 1, 1),
    "2": (2, 1, 1),
    "8": (8, 1, 1),
    "8, parameters over 4": (8, 4, 1),
    "2, in 4 parts": (2, 1, 4),
}


def losses(batch, devices: int, shards: int, parts: int):
    layout = np.array(jax.devices()[:devices]).reshape(devices // shards, shards)
    mesh = Mesh(layout, (sharding.DATA, sharding.SHARD), axis_types=(AxisType.Auto,) * 2)
    train = TrainConfig(
        steps=20,
        batch=32,
        warmup=5,
        learning_rate=0.05,
        optimizer="momentum",
        weight_decay=0.0,
        accumulate=parts,
        shards=shards,
    )
    experiment = Experiment("devices", MODEL, WORLD_CLIP, augment=CHANGES, train=train)
    state = step.first_state(experiment, mesh)
    if shards > 1:
        kernel = state.params["rgb_block_0"]["mlp_in"]["kernel"]
        assert kernel.sharding.spec == PartitionSpec(None, sharding.SHARD)
        assert kernel.addressable_shards[0].data.size == kernel.size // shards
        momentum = jax.tree.leaves(state.optimizer)
        assert any(not leaf.sharding.is_fully_replicated for leaf in momentum)
    do = step.train_step(experiment, LABELS, mesh)
    found = []
    for _ in range(train.steps):
        state, result = do(state, jax.device_put(batch, sharding.batch_sharding(mesh)))
        found.append(float(result["loss"]))
    return found


def main() -> None:
    rng = np.random.default_rng(0)
    batch = {
        "rgb": rng.integers(0, 256, (32, *MODEL.rgb_shape, 3), np.uint8),
        "spec": rng.normal(-1, 1.7, (32, *MODEL.spec_shape)).astype(np.float32),
        "labels": (rng.random((32, 6)) < 0.3).astype(np.float32),
        "mask": (np.arange(32) < 31).astype(np.float32),
        "extent": np.full((32, 2), 48, np.int32),
    }
    print(json.dumps({name: losses(batch, *how) for name, how in LAYOUTS.items()}))


if __name__ == "__main__":
    main()
