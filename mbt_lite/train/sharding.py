"""Devices and hosts: the mesh, the sharding of arrays on it, and its peak speed.

Every batch is sharded over all devices. Parameters are replicated, or with `shards` > 1 sharded
over that many devices, for models that do not fit on one device (FSDP).
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

DATA, SHARD = "data", "shard"  # the mesh's axes
MATRIX_SIZE = 2048  # of the product that is timed


def connect(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Join the other processes of this run, before anything else is computed.

    Without arguments JAX finds them itself: under SLURM, Open MPI, on Kubernetes (GKE) and TPU
    pods. ValueError where it finds none.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"the processes of this run could not be joined ({str(error).splitlines()[0]}); "
            "outside SLURM, Open MPI, Kubernetes and TPU pods name --coordinator HOST:PORT, "
            "--processes and --process."
        ) from None


def make_mesh(shards: int = 1, batch: int | None = None) -> Mesh:
    """All devices as a mesh of data x shard.

    ValueError where `shards` does not divide their number, or their number the rows of a `batch`.
    """
    count = jax.device_count()
    if count % shards:
        raise ValueError(f"train.shards={shards} does not divide the {count} devices there are.")
    if batch is not None and batch % count:
        raise ValueError(
            f"{batch} clips of a step do not divide over {count} devices; choose another "
            "train.batch, or train.accumulate."
        )
    return jax.make_mesh((count // shards, shards), (DATA, SHARD), axis_types=(AxisType.Auto,) * 2)


def hosts() -> dict[str, int]:
    """The index of this process and the number of processes, as arguments of a loader."""
    return {"host": jax.process_index(), "hosts": jax.process_count()}


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, parts: bool = False) -> NamedSharding:
    """Rows sharded over all devices; with `parts`, the rows of each part of [parts, rows, ...]."""
    axes = (DATA, SHARD)
    return NamedSharding(mesh, PartitionSpec(None, axes) if parts else PartitionSpec(axes))


def sharded(mesh: Mesh | AbstractMesh, tree):
    """A sharding for every leaf: along its longest axis that divides by the number of shards."""
    shards = mesh.shape[SHARD]

    def sharding_of(leaf) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % shards == 0]
        if shards == 1 or not axes or leaf.size < 2**10:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, SHARD))

    return jax.tree.map(sharding_of, tree)


def shard_batch(
    mesh: Mesh, batch: dict[str, np.ndarray], stop: object = None
) -> dict[str, jax.Array]:
    """The batch on the devices; each process passes its own rows.

    With several processes the batch also carries `stop`: whether one of them was asked to stop.
    """
    rows = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(batch, rows)
    batch = batch | {"stop": np.full(len(batch["mask"]), float(bool(stop)), np.float32)}
    return {name: jax.make_array_from_process_local_data(rows, x) for name, x in batch.items()}


def batch_shapes(mesh: Mesh, fields: dict) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of the result of `shard_batch`, from {name: (shape, type)} of each process's batch."""
    count, rows = jax.process_count(), batch_sharding(mesh)
    if count > 1:
        fields = fields | {"stop": (fields["mask"][0], "f4")}
    return {
        name: jax.ShapeDtypeStruct((shape[0] * count, *shape[1:]), np.dtype(kind), sharding=rows)
        for name, (shape, kind) in fields.items()
    }


def replicate(mesh: Mesh, tree):
    """The tree replicated on every device, in every process."""
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)


def peak_flops(dtype: str = "float32") -> float:
    """Measured floating-point operations per second of all devices together, on large matrices."""
    device = jax.local_devices()[0]
    matrix = jax.device_put(jnp.ones((MATRIX_SIZE, MATRIX_SIZE), dtype), device)
    product = jax.jit(jnp.matmul).lower(matrix, matrix).compile()
    best = min(_seconds(product, matrix) for _ in range(4))
    # Virtual devices of a CPU share its cores.
    count = jax.process_count() if device.platform == "cpu" else jax.device_count()
    return 2 * MATRIX_SIZE**3 / best * count


def _seconds(product, matrix: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(product(matrix, matrix))
    return time.perf_counter() - start
