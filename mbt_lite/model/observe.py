"""Read or change attention and bottleneck tokens during the model's own forward pass.

Axes: B clips, L layers, H heads, Q queries, K keys, N tokens, Z bottleneck tokens, D width.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mbt_lite.config import MBTConfig
from mbt_lite.model.attention import attention_weights
from mbt_lite.model.mbt import MBT, Clip, Output, Tokens, present_streams


def apply_with_hooks(
    model: MBT,
    params: dict,
    clip: Clip | Tokens,
    attention_probs: Callable | None = None,
    merge_bottlenecks: Callable | None = None,
) -> Output:
    """Run a forward pass in which two functions see, and can replace, intermediate results.

    `attention_probs(layer, stream, weights)` returns the weights [B, H, Q, K] to continue with;
    `stream` is None where one sequence holds the tokens of all streams.
    `merge_bottlenecks(layer, previous, updates, merged)`, each argument {stream: [B, Z, D]},
    returns the bottleneck tokens of the next layer. Nothing is computed twice.
    """
    c, streams = model.config, present_streams(model.config, clip)
    calls = Counter()

    def intercept(method, args, kwargs, context):
        result = method(*args, **kwargs)
        if context.method_name == "attention_probs" and attention_probs:
            name, layer = context.module.path[0].rsplit("block_", 1)
            joint = c.fusion == "joint" and c.fuses(int(layer), training=False)
            stream = name.rstrip("_") or (None if joint else streams[calls[layer]])
            calls[layer] += 1
            return attention_probs(int(layer), stream, result)
        if context.method_name == "merge_bottlenecks" and merge_bottlenecks:
            return merge_bottlenecks(*args, result)
        return result

    with nn.intercept_methods(intercept):
        output, _ = model.apply({"params": params}, clip, mutable=["intermediates"])
    return output


@partial(jax.jit, static_argnames=("model", "query", "layers"))
def attention_rows(
    model: MBT,
    params: dict,
    clip: Clip,
    query: str = "bottleneck",
    layers: tuple[int, ...] | None = None,
    token: ArrayLike = 0,
) -> tuple[Output, dict[str, Array]]:
    """Return the output and, per stream, the attention [B, L, H, Q, N] of query tokens to patches.

    `query` is "bottleneck" (Q = Z rows, fused layers only), "cls" (one row, any layer), "mean" (the
    mean row of all patches) or a stream: then the one row of its patch number `token`, and only
    that stream's map is returned. All maps of a full-size clip are 5.5 GB, so only these rows are
    computed, inside jit, from the queries and keys of the same forward pass. Rows sum to less than
    one: the class token, the bottleneck and, in joint fusion, the other stream get the remainder.
    """
    c = model.config
    layers = query_layers(c, query, layers)
    output, state = model.apply({"params": params}, clip, mutable=["heads"])
    lengths = {s: c.patches(s) + (c.pool == "token") for s in present_streams(c, clip)}
    rows = {s: [] for s in lengths if query not in c.streams or query == s}
    for layer in layers:
        for s in rows:
            q, k, start = stream_heads(c, state["heads"], lengths, s, layer)  # [B, H, N + ., d]
            stop, first = start + lengths[s], start + (c.pool == "token")
            q = _query_rows(q, query, start, first, stop, token)
            maps = attention_weights(q, k)[..., first:stop]
            rows[s].append(maps.mean(2, keepdims=True) if query == "mean" else maps)
    return output, {s: jnp.stack(maps, axis=1) for s, maps in rows.items()}


def _query_rows(q: Array, query: str, start: int, first: int, stop: int, token) -> Array:
    """Return the query vectors [B, H, Q, d] of the chosen tokens of a sequence."""
    if query == "bottleneck":
        return q[:, :, stop:]
    if query == "cls":
        return q[:, :, start:first]
    if query == "mean":
        return q[:, :, first:stop]
    return jax.lax.dynamic_slice_in_dim(q, first + token, 1, axis=2)


def query_layers(config: MBTConfig, query: str, layers: Sequence[int] | None) -> list[int]:
    """Return the layers to show, from 0; raise ValueError if the query has no token in one of them.

    By default the bottleneck's last layer is left out, because nothing reads its update.
    """
    if query == "cls" and config.pool != "token":
        raise ValueError(f"a model that pools by {config.pool!r} has no class token as query.")
    if query not in ("cls", "bottleneck", "mean", *config.streams):
        raise ValueError(f"query={query!r}: use 'bottleneck', 'cls', 'mean' or a patch.")
    possible = default = list(range(config.depth))
    if query == "bottleneck":
        has_bottleneck = config.fusion == "bottleneck"
        possible = [i for i in possible if has_bottleneck and config.fuses(i, training=False)]
        default = possible[:-1] or possible
    chosen = default if layers is None else [i + config.depth * (i < 0) for i in layers]
    if not chosen or not set(chosen) <= set(possible):
        raise ValueError(f"query={query!r} has tokens in layers {possible} here, not in {layers}.")
    return chosen


def stream_heads(config, heads, lengths, stream, layer) -> tuple[Array, Array, int]:
    """Return queries and keys of this stream's sequence, and where the stream starts in it."""
    joint = config.fusion == "joint" and config.fuses(layer, training=False)
    order = list(lengths)
    if config.shared_encoder:
        block = heads[f"block_{layer}"]["attention"]
        call = 0 if joint else order.index(stream)
        start = sum(lengths[s] for s in order[: order.index(stream)]) if joint else 0
    else:  # the other streams come first
        block, call = heads[f"{stream}_block_{layer}"]["attention"], 0
        start = sum(lengths.values()) - lengths[stream] if joint else 0
    return block["queries"][call], block["keys"][call], start
