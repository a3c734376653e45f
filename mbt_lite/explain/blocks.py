"""The attention of the whole model as one matrix per layer, stored in blocks by group of tokens.

Rows and columns are the tokens of all streams and of the bottleneck. The tokens of a stream attend
to their stream and, in fused layers, to the bottleneck (joint fusion: to the other streams). Every
stream updates each bottleneck token and the updates are averaged, so its row is the mean of its
rows in the streams' maps. All rows sum to one.

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

BOTTLENECK = "bottleneck"  # the group of tokens that is no stream
Blocks = dict[str, dict[str, Array]]  # {group of the rows: {group of the columns: [B, rows, N]}}


def first_rows(config: MBTConfig, lengths: dict[str, int]) -> dict[str, Array]:
    """Weights {stream: [1, 1, N]} of the tokens that the classifier reads; they sum to one.

    These are the class tokens, or all tokens alike in a model without them.
    """
    if config.pool == "token":
        rows = {s: jnp.zeros((1, 1, n)).at[..., :1].set(1) for s, n in lengths.items()}
        return {s: row / len(lengths) for s, row in rows.items()}
    return {s: jnp.ones((1, 1, n)) / sum(lengths.values()) for s, n in lengths.items()}


def back(
    rows: dict[str, Array], layer: Blocks, keep: float = 0.5, read: float = 0.5
) -> dict[str, Array]:
    """Propagate rows {group: [B, Q, N]} one layer back: the residual's part and attention's."""
    earlier = {group: keep * row for group, row in rows.items()}
    for reader, row in rows.items():
        for group, weights in layer.get(reader, {}).items():
            part = read * row @ weights
            earlier[group] = earlier[group] + part if group in earlier else part
    return earlier


def split(config: MBTConfig, weights: dict, lengths: dict[str, int], layer: int) -> Blocks:
    """Cut the maps of a layer {stream, or None for all: [B, queries, keys]} into `Blocks`."""
    streams = list(lengths)
    if None in weights:  # one sequence of all streams
        at = _slices(streams, lengths)
        return {s: {o: weights[None][:, at[s], at[o]] for o in streams} for s in streams}
    if not config.fuses(layer, training=False) or config.fusion == "late":
        return {s: {s: weights[s]} for s in streams}
    if config.fusion == "joint":
        blocks = {}
        for s in streams:  # the other streams come first in its sequence
            at = _slices([*(o for o in streams if o != s), s], lengths)
            blocks[s] = {o: weights[s][:, at[s], at[o]] for o in streams}
        return blocks
    blocks, bottleneck = {}, {BOTTLENECK: 0}
    for s, w in weights.items():
        n, share = lengths[s], 1 / len(streams)
        blocks[s] = {s: w[:, :n, :n], BOTTLENECK: w[:, :n, n:]}
        bottleneck[s] = share * w[:, n:, :n]
        bottleneck[BOTTLENECK] += share * w[:, n:, n:]
    return {**blocks, BOTTLENECK: bottleneck}


def _slices(order: list[str], lengths: dict[str, int]) -> dict[str, slice]:
    """The slice of each stream's tokens in a sequence of streams in this order."""
    ends = np.cumsum([lengths[s] for s in order]).tolist()
    return {s: slice(end - lengths[s], end) for s, end in zip(order, ends, strict=True)}


def observe(config: MBTConfig, params: dict, clip: Clip, reduce: Callable):
    """Output and, per layer, {stream: reduce(weights)} of the weights [B, H, queries, keys]."""
    maps = [{} for _ in range(config.depth)]

    def record(layer, stream, weights):
        maps[layer][stream] = reduce(weights)
        return weights

    return apply_with_hooks(MBT(config), params, clip, attention_probs=record), maps


@partial(jax.jit, static_argnames="config")
def mean_maps(config: MBTConfig, params: dict, clip: Clip) -> tuple[Output, list[Blocks]]:
    """Output, and the `Blocks` of each layer's attention, averaged over the heads."""
    output, maps = observe(config, params, clip, lambda weights: weights.mean(1))
    lengths = token_counts(config, clip)
    return output, [split(config, layer, lengths, i) for i, layer in enumerate(maps)]


@partial(jax.jit, static_argnames="config")
def gradient_maps(config: MBTConfig, params: dict, clip: Clip, labels: Array) -> list[Blocks]:
    """The `Blocks` of each layer's relu(attention x gradient), averaged over the heads.

    The gradient is that of the logits of `labels` [B] (Chefer, Gur and Wolf, "Generic
    attention-model explainability", ICCV 2021).
    """

    def score(probes):
        def attention_probs(layer, stream, weights):
            return _probed(weights, probes[layer][stream])

        output = apply_with_hooks(MBT(config, remat=True), params, clip, attention_probs)
        return output.logits[jnp.arange(len(labels)), labels].sum()

    means = jax.eval_shape(partial(observe, config, params, clip, lambda x: x.mean(1)))[1]
    products = jax.grad(score)(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), means))
    lengths = token_counts(config, clip)
    return [split(config, layer, lengths, i) for i, layer in enumerate(products)]


@jax.custom_vjp
def _probed(weights: Array, probe: Array) -> Array:
    """Return weights [B, H, Q, K]; the "gradient" of `probe` [B, Q, K] is relu(weights x gradient).

    It is averaged over the heads right there, so that no gradient of a single head is stored.
    """
    return weights


_probed.defvjp(
    lambda weights, probe: (weights, weights),
    lambda weights, cotangent: (cotangent, jax.nn.relu(weights * cotangent).mean(1)),
)


def token_counts(config: MBTConfig, clip: Clip) -> dict[str, int]:
    """{stream: number of its tokens, including the class token} for the streams of the clip."""
    streams = [s for s in config.streams if getattr(clip, s) is not None]
    return {s: config.patches(s) + (config.pool == "token") for s in streams}
