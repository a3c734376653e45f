"""The Multimodal Bottleneck Transformer (MBT): one ViT per modality, joined by bottleneck tokens.

Nagrani et al., "Attention Bottlenecks for Multimodal Fusion", NeurIPS 2021. In layers below
`fusion_layer` each modality attends to its own tokens. From there on it also attends to the Z
bottleneck tokens, and each layer averages the updates that the modalities make to them (section
3.2). All weights and biases are arranged as in Scenic's `projects/mbt`.

Axes: B clips, C classes, D width, N tokens, M mel bins, T frames, H and W pixels, Z bottleneck
tokens. A stream is "rgb" (video) or "spec" (audio).
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from mbt_lite.config import MBTConfig, sampled_frames
from mbt_lite.model.attention import Attention, gelu

small_normal = nn.initializers.normal(0.02)
layer_norm = partial(nn.LayerNorm, epsilon=1e-6)


class Clip(NamedTuple):
    """The input of the model; a missing modality is None."""

    rgb: Array | None = None  # [B, T, H, W, 3] frames
    spec: Array | None = None  # [B, N, M, 3] log-mel spectrogram, time before mel


class Tokens(NamedTuple):
    """The tokens of each stream where the prefix ends: before the first layer that fuses them."""

    rgb: Array | None = None  # [B, N, D]
    spec: Array | None = None  # [B, N, D]


class Output(NamedTuple):
    """The output of the model, the same in training and evaluation."""

    logits: Array  # [B, C]
    stream_logits: dict[str, Array]  # {stream: [B, C]}, the head applied to each stream alone
    features: Array  # [B, D], what the head reads (`representation` wide if there is such a layer)


class MBT(nn.Module):
    """The whole model: `MBT(config).apply({"params": params}, clip)` returns an `Output`.

    In training pass `train=True, rngs={"dropout": key}`. With `remat` the backward pass computes
    each block again instead of storing its activations. In the layers of the prefix no stream
    depends on the other: `prefix=True` returns their `Tokens`, which a later call accepts in place
    of the clip. Many answers about one clip so need the prefix only once.
    """

    config: MBTConfig
    remat: bool = False

    @nn.compact
    def __call__(
        self, clip: Clip | Tokens, train: bool = False, prefix: bool = False
    ) -> Output | Tokens:
        c, is_clip = self.config, isinstance(clip, Clip)
        first = 0 if is_clip else c.prefix_depth(train)
        streams = present_streams(c, clip)
        tokens = {s: getattr(clip, s) for s in streams}
        if is_clip:
            tokens = {s: self.embed(s, x) for s, x in tokens.items()}  # {s: [B, N, D]}
        initial = self.initial_bottleneck(batch=len(tokens[streams[0]]))
        bottleneck = dict.fromkeys(streams, initial)  # {s: [B, Z, D]}, as each stream sees it

        for layer in range(first, c.prefix_depth(train) if prefix else c.depth):
            blocks = self.blocks(layer)
            if c.fuses(layer, train):
                tokens, bottleneck = self.fuse(layer, blocks, tokens, bottleneck, train)
            else:
                tokens = {s: blocks[s](tokens[s], train) for s in streams}
            self.sow("intermediates", "tokens", tokens)
            self.sow("intermediates", "bottleneck", bottleneck)

        if prefix:
            return Tokens(**tokens)
        norm = layer_norm(name="final_norm")
        tokens = {s: norm(x) for s, x in tokens.items()}
        self.sow("intermediates", "encoded", tokens)
        return self.classify(tokens)

    def embed(self, stream: str, x: ArrayLike) -> Array:
        """Embed one stream: patches, a class token in front if the model has one, positions."""
        c = self.config
        x = jnp.asarray(x, jnp.float32)
        if stream == "rgb" and c.rgb_sampled:
            x = x[:, sampled_frames(x.shape[1], c.rgb_sampled)]
        x = nn.Dense(c.width, name=f"{stream}_embedding")(patchify(x, c.patch(stream)))  # [B, N, D]
        if c.pool == "token":
            token = self.param(f"{stream}_cls", nn.initializers.zeros, (1, 1, c.width))
            x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
        init = partial(_axis_positions, grid=c.grid(stream))
        return x + self.param(f"{stream}_positions", init, (1, *x.shape[1:]))  # [B, N, D]

    def initial_bottleneck(self, batch: int) -> Array | None:
        """Return the learned bottleneck tokens [B, Z, D], or None if the model has none."""
        c = self.config
        if c.fusion != "bottleneck" or len(c.streams) == 1:
            return None
        bottleneck = self.param("bottleneck", small_normal, (1, c.bottlenecks, c.width))
        return jnp.tile(bottleneck, (batch, 1, 1))

    def blocks(self, layer: int) -> "dict[str, Block]":
        """Return the transformer block of each stream in this layer: its own, or a shared one."""
        c = self.config
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block  # 2: train
        if c.shared_encoder:
            return dict.fromkeys(c.streams, block(c, layer, name=f"block_{layer}"))
        return {s: block(c, layer, name=f"{s}_block_{layer}") for s in c.streams}

    def fuse(self, layer: int, blocks, tokens, bottleneck, train):
        """Run a layer in which the streams exchange information: new tokens and bottleneck."""
        c = self.config
        if c.fusion == "bottleneck":
            tokens, updates = fuse_bottleneck(blocks, tokens, bottleneck, train)
            return tokens, self.merge_bottlenecks(layer, bottleneck, updates)
        fuse_joint = fuse_shared if c.shared_encoder else fuse_separate
        return fuse_joint(blocks, tokens, train), bottleneck

    def merge_bottlenecks(self, layer: int, previous: dict[str, Array], updates: dict[str, Array]):
        """Next bottleneck tokens {stream: [B, Z, D]}: the mean over the streams' updates (eq. 9).

        Hooks of `observe.apply_with_hooks` can replace them.
        """
        return dict.fromkeys(previous, mean_of(updates))

    def classify(self, tokens: dict[str, Array]) -> Output:
        """Classify the normalized tokens {stream: [B, N, D]}.

        With class tokens the logits are the mean over the streams of the head's logits for each
        class token. Otherwise the tokens of all streams are pooled together for the logits, and
        those of one stream for its `stream_logits`.
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
        joint = features_of(jnp.concatenate(list(tokens.values()), axis=1))  # [B, D]
        return Output(head(joint), stream_logits, joint)


def fuse_bottleneck(blocks, tokens, bottleneck, train):
    """Let each stream attend to its own tokens and the bottleneck [B, Z, D] (paper, eq. 8)."""
    new, updates = {}, {}
    for s, x in tokens.items():
        y = blocks[s](jnp.concatenate([x, bottleneck[s]], axis=1), train)  # [B, N + Z, D]
        new[s], updates[s] = y[:, : x.shape[1]], y[:, x.shape[1] :]
    return new, updates


def fuse_shared(blocks, tokens, train):
    """Pass the tokens of all streams as one sequence through one block."""
    x = jnp.concatenate(list(tokens.values()), axis=1)  # [B, N of all, D]
    y = next(iter(blocks.values()))(x, train)
    ends = list(accumulate(x.shape[1] for x in tokens.values()))
    return dict(zip(tokens, jnp.split(y, ends[:-1], axis=1), strict=True))


def fuse_separate(blocks, tokens, train):
    """Pass all tokens through each stream's block, which updates only its own tokens."""
    new = {}
    for s, x in tokens.items():
        others = [other for name, other in tokens.items() if name != s]
        new[s] = blocks[s](jnp.concatenate([*others, x], axis=1), train)[:, -x.shape[1] :]
    return new


def mean_of(arrays: dict[str, Array]) -> Array:
    """Average arrays of one shape over the streams."""
    return sum(arrays.values()) / len(arrays)


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


class StochasticDepth(nn.Module):
    """Drop a clip's whole residual branch with probability `rate`, without rescaling (Scenic's)."""

    rate: float

    @nn.compact
    def __call__(self, branch: Array, train: bool) -> Array:
        if not train or self.rate == 0:
            return branch
        mask = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.rate, (len(branch), 1, 1))
        return branch * mask  # [B, N, D]


def patchify(x: Array, patch: Sequence[int]) -> Array:
    """Cut an array [B, ..., 3] into patches [B, N, values of a patch], row by row.

    `patch` holds the size of a patch along each axis; partial patches at the end are dropped.
    """
    grid = [size // side for size, side in zip(x.shape[1:-1], patch, strict=True)]
    x = x[(slice(None), *(slice(n * side) for n, side in zip(grid, patch, strict=True)))]
    pairs = [size for pair in zip(grid, patch, strict=True) for size in pair]
    x = x.reshape(len(x), *pairs, x.shape[-1])  # [B, grid 0, patch 0, grid 1, patch 1, ..., 3]
    axes = range(1, x.ndim - 1)
    x = x.transpose(0, *axes[::2], *axes[1::2], x.ndim - 1)
    return x.reshape(len(x), math.prod(grid), -1)


def _axis_positions(key: Array, shape: tuple[int, ...], grid: Sequence[int]) -> Array:
    """Initial position embeddings [1, N, D]: one random vector per place on each axis, summed.

    Patches of the same row, column or time thus start with similar embeddings, and a small model
    need not learn the grid token by token. A class token in front gets a vector of its own.
    """
    keys = jax.random.split(key, len(grid) + 1)
    vectors = []
    for axis, count in enumerate(grid):
        sides = [count if i == axis else 1 for i in range(len(grid))]
        vectors.append(0.25 * jax.random.normal(keys[axis], (*sides, shape[-1])))
    patches = sum(vectors).reshape(1, -1, shape[-1])  # [1, grid 0 * grid 1 * ..., D]
    token = 0.25 * jax.random.normal(keys[-1], (1, shape[1] - patches.shape[1], shape[-1]))
    return jnp.concatenate([token, patches], axis=1)


def present_streams(config: MBTConfig, clip: Clip | Tokens) -> list[str]:
    """Return the model's streams that the clip has; raise ValueError where a shape does not fit."""
    streams = [s for s in config.streams if getattr(clip, s) is not None]
    if not streams:
        raise ValueError(f"the clip has none of the model's streams {config.streams}.")
    for s in streams if isinstance(clip, Clip) else ():
        shape, expected = getattr(clip, s).shape, config.shape(s)
        fits = len(shape) == len(expected) + 2 and shape[-1] == 3
        if not fits or config.grid_of(s, shape[1:-1]) != config.grid(s):
            raise ValueError(
                f"clip.{s} has shape {tuple(shape)}; this model needs "
                f"[clips, {', '.join(map(str, expected))}, 3]."
            )
    return streams


def blank_clip(config: MBTConfig, batch: int = 1) -> Clip:
    """Return a clip of zeros in the model's input shape."""
    return Clip(**{s: jnp.zeros((batch, *config.shape(s), 3)) for s in config.streams})


@partial(jax.jit, static_argnums=0)
def init_params(config: MBTConfig, key: Array) -> dict:
    """Initialize parameters; `jax.eval_shape(partial(init_params, config), key)` uses no memory."""
    return MBT(config).init(key, blank_clip(config))["params"]
