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
from mbt_lite.model.mbt import MBT, Clip, Output, present_streams


def apply_with_hooks(
    model: MBT,
    params: dict,
    clip: Clip,
    weigh: Callable | None = None,
    share: Callable | None = None,
) -> Output:
    """Run a forward pass in which functions of yours see and change attention and bottleneck.

    `weigh(layer, stream, weights)` gives back the weights [B, H, Q, K] to go on with; `stream` is
    None where one sequence holds all of them. `share(layer, old, written, shared)`, each of them
    {stream: [B, Z, D]}, gives back what the streams read next. Nothing is computed twice.
    """
    c, streams = model.config, present_streams(model.config, clip)
    calls = Counter()

    def tap(call, args, kwargs, context):
        made = call(*args, **kwargs)
        if context.method_name == "weigh" and weigh:
            name, layer = context.module.path[0].rsplit("block_", 1)
            joint = c.fusion == "joint" and c.fuses(int(layer), training=False)
            own = name.rstrip("_") or (None if joint else streams[calls[layer]])
            calls[layer] += 1
            return weigh(int(layer), own, made)
        if context.method_name == "share" and share:
            return share(*args, made)
        return made

    with nn.intercept_methods(tap):
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

    `query` is "bottleneck" (Q = Z rows, in fused layers only), "cls" (one row, any layer), "mean"
    (the mean row of all patches) or a stream, of which the patch number `token` asks and which
    alone comes back. All maps of a full-size clip are 5.5 GB, so only these rows are made, inside
    jit, out of the queries and keys of the same forward pass. Rows sum to less than one: class
    token, bottlenecks and, in joint fusion, the other stream take the rest.
    """
    c = model.config
    layers = query_layers(c, query, layers)
    output, seen = model.apply({"params": params}, clip, mutable=["heads"])
    lengths = {s: c.patches(s) + (c.pool == "token") for s in present_streams(c, clip)}
    rows = {s: [] for s in lengths if query not in c.streams or query == s}
    for layer in layers:
        for s in rows:
            q, k, start = stream_heads(c, seen["heads"], lengths, s, layer)  # [B, H, N + ., d]
            stop, first = start + lengths[s], start + (c.pool == "token")
            asking = query_rows(q, query, start, first, stop, token)
            maps = attention_weights(asking, k)[..., first:stop]
            rows[s].append(maps.mean(2, keepdims=True) if query == "mean" else maps)
    return output, {s: jnp.stack(maps, axis=1) for s, maps in rows.items()}


def query_rows(q: Array, query: str, start: int, first: int, stop: int, token) -> Array:
    """Return the query vectors [B, H, Q, d] of the chosen tokens of a sequence."""
    if query == "bottleneck":
        return q[:, :, stop:]
    if query == "cls":
        return q[:, :, start:first]
    if query == "mean":
        return q[:, :, first:stop]
    return jax.lax.dynamic_slice_in_dim(q, first + token, 1, axis=2)


def query_layers(config: MBTConfig, query: str, layers: Sequence[int] | None) -> list[int]:
    """Return the layers to show, from 0; raise ValueError if the query has no token there.

    By default the bottleneck's last layer is left out: nobody reads what it reads there.
    """
    depth = range(config.depth)
    if query == "cls" and config.pool != "token":
        raise ValueError(f"a model that pools by {config.pool!r} has no class token to ask.")
    if query not in ("cls", "bottleneck", "mean", *config.streams):
        raise ValueError(f"query={query!r}: ask 'bottleneck', 'cls', 'mean' or a patch.")
    bottled = config.fusion == "bottleneck"
    able = [
        i for i in depth if query != "bottleneck" or bottled and config.fuses(i, training=False)
    ]
    useful = able[:-1] or able if query == "bottleneck" else able
    wanted = useful if layers is None else [i + config.depth * (i < 0) for i in layers]
    if not wanted or not set(wanted) <= set(able):
        raise ValueError(f"query={query!r} has tokens in layers {able} here, not in {layers}.")
    return wanted


def stream_heads(config, seen, lengths, stream, layer) -> tuple[Array, Array, int]:
    """Return queries and keys of this stream's sequence, and where the stream starts in it."""
    joint = config.fusion == "joint" and config.fuses(layer, training=False)
    order = list(lengths)
    before = sum(lengths[s] for s in order[: order.index(stream)])
    others = sum(lengths.values()) - lengths[stream]
    name = f"block_{layer}" if config.shared_encoder else f"{stream}_block_{layer}"
    heads, call, start = seen[name]["attention"], 0, others if joint else 0
    if config.shared_encoder:
        call, start = (0, before) if joint else (order.index(stream), 0)
    return heads["queries"][call], heads["keys"][call], start
