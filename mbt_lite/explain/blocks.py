"""Attention of the whole model as one matrix per layer, stored in blocks, and mass along it.

The tokens of all streams and the bottleneck are the rows and columns. Tokens of a stream read their
stream and, in fused layers, the bottleneck (joint fusion: the other streams). A bottleneck token of
the bottleneck is written by every stream and averaged, so its row is the mean of its rows in the
streams' maps; it sums to one, as all others do.

B clips   Q queries   N tokens   Z bottleneck tokens   H heads
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from mbt_lite.config import MBTConfig
from mbt_lite.model.mbt import MBT, Clip, Output
from mbt_lite.model.observe import apply_with_hooks

BOTTLENECK = "bottleneck"  # the name of the group that is no stream
Rows = dict[str, dict[str, Array]]  # {reading group: {group that is read: [B, readers, N]}}


def first_rows(config: MBTConfig, lengths: dict[str, int]) -> dict[str, Array]:
    """Where answers are read: {stream: [1, 1, N]} of its class token or, without one, all alike.

    The sum over all streams is one, because the answer is the mean over the streams.
    """
    total = len(lengths) if config.pool == "token" else sum(lengths.values())
    rows = {s: jnp.zeros((1, 1, n)).at[..., :1].set(1) for s, n in lengths.items()}
    rows = rows if config.pool == "token" else {s: jnp.ones_like(x) for s, x in rows.items()}
    return {s: x / total for s, x in rows.items()}


def back(
    rows: dict[str, Array], layer: Rows, keep: float = 0.5, read: float = 0.5
) -> dict[str, Array]:
    """Rows [B, Q, N] by group, one layer earlier: what was kept and what was read through it."""
    found = {group: keep * row for group, row in rows.items()}
    for reader, sources in layer.items():
        for group, weights in sources.items() if reader in rows else ():
            part = read * rows[reader] @ weights
            found[group] = found[group] + part if group in found else part
    return found


def split(config: MBTConfig, weights: dict, lengths: dict[str, int], layer: int) -> Rows:
    """The blocks of a layer from its maps {stream, or None for all: [B, queries, keys]}."""
    streams = list(lengths)
    if None in weights:  # one sequence of all streams
        full, where = weights[None], _places(streams, lengths)
        return {s: {o: full[:, where[s], where[o]] for o in streams} for s in streams}
    if not config.fuses(layer, training=False) or config.fusion == "late":
        return {s: {s: weights[s]} for s in streams}
    if config.fusion == "joint":  # the others come first among the keys
        return {s: _beside(weights[s], s, lengths) for s in streams}
    rows = {s: {s: w[:, : lengths[s], : lengths[s]]} for s, w in weights.items()}
    bottlenecks = {s: w[:, lengths[s] :, : lengths[s]] / len(streams) for s, w in weights.items()}
    for s, w in weights.items():
        rows[s][BOTTLENECK] = w[:, : lengths[s], lengths[s] :]
    carried = sum(w[:, lengths[s] :, lengths[s] :] for s, w in weights.items()) / len(streams)
    return {**rows, BOTTLENECK: {**bottlenecks, BOTTLENECK: carried}}


def _beside(full: Array, stream: str, lengths: dict[str, int]) -> dict[str, Array]:
    where = _places([*(s for s in lengths if s != stream), stream], lengths)
    return {s: full[:, where[stream], where[s]] for s in lengths}


def _places(order: list[str], lengths: dict[str, int]) -> dict[str, slice]:
    """Where each stream's tokens lie in a sequence of this order."""
    ends = np.cumsum([lengths[s] for s in order]).tolist()
    return {s: slice(end - lengths[s], end) for s, end in zip(order, ends, strict=True)}


def observe(config: MBTConfig, params: dict, clip: Clip, reduce: Callable):
    """Output and, per layer, {stream: reduce(weights)} of the weights [B, H, queries, keys]."""
    seen = [{} for _ in range(config.depth)]

    def weigh(layer, stream, weights):
        seen[layer][stream] = reduce(weights)
        return weights

    return apply_with_hooks(MBT(config), params, clip, weigh=weigh), seen


@partial(jax.jit, static_argnames="config")
def mean_maps(config: MBTConfig, params: dict, clip: Clip) -> tuple[Output, list[Rows]]:
    """Output, and of every layer the blocks of its attention, the mean over the heads."""
    output, seen = observe(config, params, clip, lambda weights: weights.mean(1))
    lengths = token_counts(config, clip)
    return output, [split(config, maps, lengths, i) for i, maps in enumerate(seen)]


@partial(jax.jit, static_argnames="config")
def gradient_maps(config: MBTConfig, params: dict, clip: Clip, labels: Array) -> list[Rows]:
    """Of every layer the blocks of attention times its gradient, negative products taken as zero.

    The gradient is that of the logits of `labels` [B]; the mean is over the heads (Chefer, Gur and
    Wolf, "Generic attention-model explainability", ICCV 2021).
    """

    def score(marks):
        def weigh(layer, stream, weights):
            return _marked(weights, marks[layer][stream])

        output = apply_with_hooks(MBT(config, remat=True), params, clip, weigh)
        return output.logits[jnp.arange(len(labels)), labels].sum()

    means = jax.eval_shape(partial(observe, config, params, clip, lambda x: x.mean(1)))[1]
    products = jax.grad(score)(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), means))
    lengths = token_counts(config, clip)
    return [split(config, maps, lengths, i) for i, maps in enumerate(products)]


@jax.custom_vjp
def _marked(weights: Array, mark: Array) -> Array:
    """The weights [B, H, Q, K] as they are; the gradient of `mark` [B, Q, K] is their product.

    That is, with their own gradient, where positive, the mean over the heads: so that no gradient
    of a single head has to be kept.
    """
    return weights


_marked.defvjp(
    lambda weights, mark: (weights, weights),
    lambda weights, slope: (slope, jax.nn.relu(weights * slope).mean(1)),
)


def token_counts(config: MBTConfig, clip: Clip) -> dict[str, int]:
    """{stream: number of its tokens, class token and all} of the streams that the clip has."""
    streams = [s for s in config.streams if getattr(clip, s) is not None]
    return {s: config.patches(s) + (config.pool == "token") for s in streams}
