"""The Multimodal Bottleneck Transformer: one ViT per stream, and a few tokens that they share.

Axes: B clips, C classes, D width, H heads, d head width, K keys, N tokens, Q queries, Z bottleneck.

Blocks below `fusion_layer` see one stream each. From there on a stream attends to its own tokens
and to the Z bottlenecks, and what the streams wrote into the bottlenecks is averaged. The wiring,
down to the last bias, is that of Scenic's `projects/mbt`; its weights load through `checkpoint`.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mbt_lite.config import MBTConfig, sampled_frames

ROWS = 128  # queries in a block of attention on a CPU
SHORT = 256  # tokens up to which all weights fit the cache anyway

small_normal = nn.initializers.normal(0.02)
layer_norm = partial(nn.LayerNorm, epsilon=1e-6)
_product = partial(jnp.matmul, preferred_element_type=jnp.float32)


class Clip(NamedTuple):
    """What the model eats; a missing stream is None."""

    rgb: Array | None = None  # [B, T, H, W, 3] frames
    spec: Array | None = None  # [B, N, M, 3] log-mel spectrogram, time before mel


class Output(NamedTuple):
    """What the model says, in training and in evaluation alike."""

    logits: Array  # [B, C]
    stream_logits: dict[str, Array]  # {stream: [B, C]}, what each stream says by itself
    features: Array  # [B, D], what the head reads (`representation` wide if there is such a layer)


def attention_weights(q: Array, k: Array) -> Array:
    """[B, H, Q, K] of rows that sum to one: how much each query reads from each key, in float32.

    q [B, H, Q, d] and k [B, H, K, d] carry the heads in front: on a CPU that is several times
    faster than the other order.
    """
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(scores / math.sqrt(q.shape[-1]), axis=-1)


@jax.custom_vjp
def blocked_attention(q: Array, k: Array, v: Array) -> Array:
    """[B, Q, H, d]: what each query reads, a block of queries after the other, for CPUs.

    Softmax and result are those of `attention_weights(q, k) @ v` with the heads moved back, but of
    the weights no more than [ROWS, K] exist at a time, which stay in a core's cache. The backward
    pass makes them again out of each row's sum (Dao et al. 2022, "FlashAttention", appendix B.2).
    """
    return _attend(q, k, v)[0]


@jax.jit  # layers of one size are traced once
def _attend(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
    """What `blocked_attention` gives, and what `_attend_backward` needs."""

    def head(given):
        q, k, v = given
        return jax.lax.map(partial(_read, k, v), q)

    blocks = _in_blocks(q / math.sqrt(q.shape[-1]))
    read, log_sums = jax.lax.map(head, (blocks, _flat(k), _flat(v)))
    read = _whole(read, q.shape).swapaxes(1, 2)
    return read, (q, k, v, read, log_sums)


def _read(k: Array, v: Array, q: Array) -> tuple[Array, Array]:
    """What a block of queries [Q, d] reads of k and v [K, d], and log sum exp of its scores."""
    scores = _product(q, k.T)  # [Q, K]
    highest = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(-1, keepdims=True)
    read = _product(weights.astype(v.dtype), v) / total  # divided last, when it is small
    return read.astype(v.dtype), highest + jnp.log(total)


@jax.jit
def _attend_backward(kept: tuple, change: Array) -> tuple[Array, Array, Array]:
    """Gradients of q, k and v, [B, H, N, d] each, from that of what was read."""
    q, k, v, read, log_sums = kept
    scale = 1 / math.sqrt(q.shape[-1])
    means = (read.astype(jnp.float32) * change).sum(-1, keepdims=True)
    means, change = (x.swapaxes(1, 2) for x in (means, change))  # [B, H, Q, 1], [B, H, Q, d]

    def head(given):
        k, v, blocks = given
        nothing = jnp.zeros(k.shape, jnp.float32)
        return jax.lax.scan(partial(_read_backward, k, v), (nothing, nothing), blocks)

    blocks = _in_blocks(scale * q), log_sums, _in_blocks(means), _in_blocks(change)
    (of_k, of_v), of_q = jax.lax.map(head, (_flat(k), _flat(v), blocks))
    found = scale * _whole(of_q, q.shape), of_k.reshape(k.shape), of_v.reshape(v.shape)
    return tuple(x.astype(q.dtype) for x in found)


def _read_backward(k: Array, v: Array, sums: tuple, block: tuple) -> tuple[tuple, Array]:
    """Gradients of k and v with this block's share added, and of its queries."""
    q, log_sums, means, change = block
    weights = jnp.exp(_product(q, k.T) - log_sums)  # [Q, K]
    scores = (weights * (_product(change, v.T) - means)).astype(k.dtype)
    of_k, of_v = _product(scores.T, q), _product(weights.T.astype(v.dtype), change)
    return (sums[0] + of_k, sums[1] + of_v), _product(scores, k)


blocked_attention.defvjp(_attend, _attend_backward)


def _flat(x: Array) -> Array:
    """[B H, N, d]"""
    return x.reshape(-1, *x.shape[2:])


def _in_blocks(x: Array) -> Array:
    """[B H, blocks, ROWS, d], filled up with zeros, which read and change nothing."""
    x = jnp.pad(_flat(x), ((0, 0), (0, -x.shape[2] % ROWS), (0, 0)))
    return x.reshape(len(x), -1, ROWS, x.shape[-1])


def _whole(blocks: Array, shape: tuple[int, ...]) -> Array:
    """What `_in_blocks` has cut."""
    flat = blocks.reshape(len(blocks), -1, blocks.shape[-1])
    return flat[:, : shape[2]].reshape(shape)


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """GELU in its tanh form, which the published weights know; the backward pass needs only x."""
    return nn.gelu(x, approximate=True)


def _gelu_backward(x: Array, change: Array) -> tuple[Array]:
    """The gradient, by 0.5 (1 + tanh(u)) = sigmoid(2 u).

    Were it a tanh here too, XLA would compute it once, on the way there, and keep it until now.
    """
    wide = x.astype(jnp.float32)
    u = 2 * math.sqrt(2 / math.pi)
    gate = jax.nn.sigmoid(u * (wide + 0.044715 * wide**3))
    slope = gate + wide * gate * (1 - gate) * u * (1 + 3 * 0.044715 * wide**2)
    return ((change * slope).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)


class Attention(nn.Module):
    """Self-attention: written out where it is observed or short, else never as one large matrix.

    On a CPU that is `blocked_attention`, on an accelerator JAX's own, `fused` where it can be.
    """

    heads: int
    dropout: float
    dtype: str

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        batch, length, width = x.shape
        qkv = nn.Dense(3 * width, dtype=self.dtype, name="qkv")(x)  # [B, N, 3 D]
        qkv = qkv.reshape(batch, length, 3, self.heads, width // self.heads)

        q, k, v = jnp.moveaxis(qkv, (2, 3), (0, 2))  # [B, H, N, d] each
        self.sow("heads", "queries", q)
        self.sow("heads", "keys", k)
        drops = train and self.dropout > 0
        observed = self.is_mutable_collection("intermediates")
        on_cpu = jax.default_backend() == "cpu"
        if drops or observed or on_cpu and length <= SHORT:
            weights = self.weigh(q, k)  # [B, H, N, K]
            self.sow("intermediates", "weights", weights)
            weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
            read = (weights.astype(v.dtype) @ v).swapaxes(1, 2)  # [B, N, H, d]
        elif on_cpu:
            read = blocked_attention(q, k, v)  # [B, N, H, d]
        else:
            q, k, v = jnp.moveaxis(qkv, 2, 0)  # [B, N, H, d] each
            read = jax.nn.dot_product_attention(q, k, v, implementation=fused(q))
        return nn.Dense(width, dtype=self.dtype, name="out")(read.reshape(x.shape))  # [B, N, D]

    def weigh(self, q: Array, k: Array) -> Array:
        """`attention_weights`, at a place where `tapped` can reach them."""
        return attention_weights(q, k)


def fused(q: Array) -> str | None:
    """ "cudnn" where NVIDIA's flash attention can take such queries [B, N, H, d], else None.

    It wants short numbers, heads of up to 128 in steps of 8, and Ampere or later.
    """
    device = jax.local_devices()[0]
    known = "NVIDIA" in device.device_kind and float(device.compute_capability) >= 8.0
    fits = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
    return "cudnn" if known and fits else None


class StochasticDepth(nn.Module):
    """Drops the whole branch of a clip with this probability; what is kept is not rescaled."""

    rate: float

    @nn.compact
    def __call__(self, branch: Array, train: bool) -> Array:
        if not train or self.rate == 0:
            return branch
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, (len(branch), 1, 1))
        return branch * kept  # [B, N, D]


class Block(nn.Module):
    """A pre-norm transformer block over the tokens of one sequence."""

    config: MBTConfig
    layer: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c = self.config
        dense = partial(nn.Dense, dtype=c.dtype)
        dropout = nn.Dropout(c.dropout, deterministic=not train)
        rate = c.drop_path * self.layer / max(c.depth - 1, 1)

        y = layer_norm(dtype=c.dtype, name="attention_norm")(x)
        y = Attention(c.heads, c.attention_dropout, c.dtype, name="attention")(y, train)
        x = x + StochasticDepth(rate, name="attention_drop")(dropout(y), train)  # [B, N, D]

        y = layer_norm(dtype=c.dtype, name="mlp_norm")(x)
        y = dense(c.mlp_dim, name="mlp_in")(y)
        y = dropout(gelu(y))
        y = dropout(dense(c.width, name="mlp_out")(y))
        return x + StochasticDepth(rate, name="mlp_drop")(y, train)  # [B, N, D]


def patchify(x: Array, patch: Sequence[int]) -> Array:
    """[B, N, numbers in a patch]: row-major, each flattened; what no patch fills is dropped."""
    grid = [size // side for size, side in zip(x.shape[1:-1], patch, strict=True)]
    x = x[(slice(None), *(slice(n * side) for n, side in zip(grid, patch, strict=True)))]
    pairs = [size for pair in zip(grid, patch, strict=True) for size in pair]
    x = x.reshape(len(x), *pairs, x.shape[-1])  # [B, grid 0, patch 0, grid 1, patch 1, ..., 3]
    axes = range(1, x.ndim - 1)
    x = x.transpose(0, *axes[::2], *axes[1::2], x.ndim - 1)
    return x.reshape(len(x), math.prod(grid), -1)


def axis_positions(key: Array, shape: tuple[int, ...], grid: Sequence[int]) -> Array:
    """[1, N, D] to start from: a random vector for each place on each axis of the grid, summed.

    Places in the same row, column or instant so begin alike, and a small model need not learn the
    grid token by token. A class token in front gets a vector of its own.
    """
    keys = jax.random.split(key, len(grid) + 1)
    vectors = []
    for axis, count in enumerate(grid):
        sides = [count if i == axis else 1 for i in range(len(grid))]
        vectors.append(0.25 * jax.random.normal(keys[axis], (*sides, shape[-1])))
    patches = sum(vectors).reshape(1, -1, shape[-1])  # [1, grid 0 * grid 1 * ..., D]
    token = 0.25 * jax.random.normal(keys[-1], (1, shape[1] - patches.shape[1], shape[-1]))
    return jnp.concatenate([token, patches], axis=1)


class MBT(nn.Module):
    """`MBT(config).apply({"params": params}, clip, train=False, rngs={"dropout": key})`: Output.

    With `remat` the backward pass computes each block again instead of keeping what it made.
    """

    config: MBTConfig
    remat: bool = False

    @nn.compact
    def __call__(self, clip: Clip, train: bool = False) -> Output:
        c = self.config
        streams = present_streams(c, clip)
        tokens = {s: self.embed(s, getattr(clip, s)) for s in streams}  # {s: [B, N, D]}
        first = self.first_bottleneck(len(tokens[streams[0]]))
        bottleneck = dict.fromkeys(streams, first)  # {s: [B, Z, D]}, what each stream reads

        for layer in range(c.depth):
            blocks = self.blocks(layer)
            if not c.fuses(layer, train):
                tokens = {s: blocks[s](tokens[s], train) for s in streams}
            elif c.fusion == "bottleneck":
                tokens, written = fuse_bottleneck(blocks, tokens, bottleneck, train)
                bottleneck = self.share(layer, bottleneck, written)
            elif c.shared_encoder:
                tokens = fuse_shared(blocks, tokens, train)
            else:
                tokens = fuse_separate(blocks, tokens, train)
            self.sow("intermediates", "tokens", tokens)
            self.sow("intermediates", "bottleneck", bottleneck)

        norm = layer_norm(name="final_norm")
        tokens = {s: norm(x) for s, x in tokens.items()}
        self.sow("intermediates", "encoded", tokens)
        return self.classify(tokens)

    def embed(self, stream: str, x: ArrayLike) -> Array:
        """[B, N, D]: class token if any, then the patches; learned positions added to all."""
        c = self.config
        x = jnp.asarray(x, jnp.float32)
        if stream == "rgb" and c.rgb_sampled:
            x = x[:, sampled_frames(x.shape[1], c.rgb_sampled)]
        x = nn.Dense(c.width, name=f"{stream}_embedding")(patchify(x, c.patch(stream)))  # [B, N, D]
        if c.pool == "token":
            token = self.param(f"{stream}_cls", nn.initializers.zeros, (1, 1, c.width))
            x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
        init = partial(axis_positions, grid=c.grid(stream))
        return x + self.param(f"{stream}_positions", init, (1, *x.shape[1:]))  # [B, N, D]

    def first_bottleneck(self, batch: int) -> Array | None:
        """[B, Z, D], or None where no bottleneck exists."""
        c = self.config
        if c.fusion != "bottleneck" or len(c.streams) == 1:
            return None
        bottleneck = self.param("bottleneck", small_normal, (1, c.bottlenecks, c.width))
        return jnp.tile(bottleneck, (batch, 1, 1))

    def blocks(self, layer: int) -> dict[str, Block]:
        """The block of each stream in this layer: its own, or one for all."""
        c = self.config
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block  # 2: train
        if c.shared_encoder:
            return dict.fromkeys(c.streams, block(c, layer, name=f"block_{layer}"))
        return {s: block(c, layer, name=f"{s}_block_{layer}") for s in c.streams}

    def share(self, layer: int, old: dict[str, Array], written: dict[str, Array]):
        """{s: [B, Z, D]} that each stream reads next: for all, the mean of what all have written.

        `tapped` can give them something else, for example part of the `old` one.
        """
        return dict.fromkeys(old, mean_of(written))

    def classify(self, tokens: dict[str, Array]) -> Output:
        """Output from the normalised tokens {stream: [B, N, D]}.

        By class token the logits are the mean of the streams' logits, each read off its own token.
        Otherwise they come from pooling the tokens of all streams together, and a stream's logits
        from the same head over its own tokens.
        """
        c = self.config
        head = nn.Dense(c.classes, kernel_init=nn.initializers.zeros, name="head")
        pre_logits = nn.Dense(c.representation, name="pre_logits") if c.representation else None

        def features_of(x):
            pooled = x[:, 0] if c.pool == "token" else getattr(jnp, c.pool)(x, axis=1)  # [B, D]
            return jnp.tanh(pre_logits(pooled)) if c.representation else pooled

        features = {s: features_of(x) for s, x in tokens.items()}  # {s: [B, D]}
        stream_logits = {s: head(x) for s, x in features.items()}  # {s: [B, C]}
        if c.pool == "token":
            return Output(mean_of(stream_logits), stream_logits, mean_of(features))
        together = features_of(jnp.concatenate(list(tokens.values()), axis=1))  # [B, D]
        return Output(head(together), stream_logits, together)


def mean_of(arrays: dict[str, Array]) -> Array:
    """The mean over the streams, in the shape of each."""
    return sum(arrays.values()) / len(arrays)


def fuse_bottleneck(blocks, tokens, bottleneck, train):
    """Tokens of the next layer, and what each stream writes into the bottleneck [B, Z, D]."""
    new, written = {}, {}
    for s, x in tokens.items():
        y = blocks[s](jnp.concatenate([x, bottleneck[s]], axis=1), train)  # [B, N + Z, D]
        new[s], written[s] = y[:, : x.shape[1]], y[:, x.shape[1] :]
    return new, written


def fuse_shared(blocks, tokens, train):
    """Tokens of the next layer, all streams in one sequence through one block."""
    x = jnp.concatenate(list(tokens.values()), axis=1)  # [B, N of all, D]
    y = next(iter(blocks.values()))(x, train)
    return {s: y[:, span] for s, span in spans(tokens).items()}


def fuse_separate(blocks, tokens, train):
    """Tokens of the next layer; a stream's block also sees the others' old tokens, placed first."""
    new = {}
    for s, x in tokens.items():
        others = [other for name, other in tokens.items() if name != s]
        new[s] = blocks[s](jnp.concatenate([*others, x], axis=1), train)[:, -x.shape[1] :]
    return new


def spans(tokens: dict[str, Array]) -> dict[str, slice]:
    """Where each stream's tokens lie when all are put into one sequence."""
    start, found = 0, {}
    for s, x in tokens.items():
        found[s] = slice(start, start + x.shape[1])
        start += x.shape[1]
    return found


def present_streams(config: MBTConfig, clip: Clip) -> list[str]:
    """The streams that the model wants and the clip has, in the model's order."""
    streams = [s for s in config.streams if getattr(clip, s) is not None]
    if not streams:
        raise ValueError(f"the clip has none of the model's streams {config.streams}.")
    for s in streams:
        shape, wanted = getattr(clip, s).shape, config.shape(s)
        fits = len(shape) == len(wanted) + 2 and shape[-1] == 3
        if not fits or config.grid_of(s, shape[1:-1]) != config.grid(s):
            raise ValueError(
                f"clip.{s} has shape {tuple(shape)}; this model wants "
                f"[clips, {', '.join(map(str, wanted))}, 3]."
            )
    return streams


def blank_clip(config: MBTConfig, batch: int = 1) -> Clip:
    """A clip of zeros in the shape that the model wants."""
    return Clip(**{s: jnp.zeros((batch, *config.shape(s), 3)) for s in config.streams})


@partial(jax.jit, static_argnums=0)
def init_params(config: MBTConfig, key: Array) -> dict:
    """Fresh parameters; `jax.eval_shape(partial(init_params, config), key)` costs no memory."""
    return MBT(config).init(key, blank_clip(config))["params"]


def tapped(
    model: MBT,
    params: dict,
    clip: Clip,
    weigh: Callable | None = None,
    share: Callable | None = None,
) -> Output:
    """Output of a forward pass whose attention and bottleneck go through your hands.

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
    """Output, and per stream [B, L, H, Q, N]: what the query tokens read from the stream's patches.

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
    """The queries [B, H, Q, d] that ask, of a sequence where a stream lies in `start`..`stop`."""
    if query == "bottleneck":
        return q[:, :, stop:]
    if query == "cls":
        return q[:, :, start:first]
    if query == "mean":
        return q[:, :, first:stop]
    return jax.lax.dynamic_slice_in_dim(q, first + token, 1, axis=2)


def query_layers(config: MBTConfig, query: str, layers: Sequence[int] | None) -> list[int]:
    """The layers to show, counted from 0; refuses queries that have no token there.

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
    """The queries and keys among which this stream's are, and where in them the stream starts."""
    joint = config.fusion == "joint" and config.fuses(layer, training=False)
    order = list(lengths)
    before = sum(lengths[s] for s in order[: order.index(stream)])
    others = sum(lengths.values()) - lengths[stream]
    name = f"block_{layer}" if config.shared_encoder else f"{stream}_block_{layer}"
    heads, call, start = seen[name]["attention"], 0, others if joint else 0
    if config.shared_encoder:
        call, start = (0, before) if joint else (order.index(stream), 0)
    return heads["queries"][call], heads["keys"][call], start
