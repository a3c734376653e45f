"""MBT in its usual formulation, for comparison: same weights, same logits.

As the original is described: patches by a convolution, one matrix each for queries, keys and
values, and a plain softmax over all keys, all of them Flax's own layers. The wiring is ours and the
weights are `translated`, so both give the same logits; only the formulation differs.

B clips, C classes, N tokens, D width
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mbt_lite.config import MBTConfig
from mbt_lite.model.mbt import Clip


class ReferenceBlock(nn.Module):
    """A pre-norm transformer block of Flax's layers."""

    config: MBTConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = self.config
        y = nn.LayerNorm(epsilon=1e-6, dtype=c.dtype, name="attention_norm")(x)
        y = nn.MultiHeadDotProductAttention(c.heads, dtype=c.dtype, name="attention")(y)
        x = x + y
        y = nn.LayerNorm(epsilon=1e-6, dtype=c.dtype, name="mlp_norm")(x)
        y = nn.gelu(nn.Dense(c.mlp_dim, dtype=c.dtype, name="mlp_in")(y))
        return x + nn.Dense(c.width, dtype=c.dtype, name="mlp_out")(y)


class ReferenceMBT(nn.Module):
    """Logits {stream: [B, C]} of a `Clip`, by bottleneck fusion, from class tokens."""

    config: MBTConfig

    @nn.compact
    def __call__(self, clip: Clip) -> dict[str, Array]:
        c = self.config
        tokens = {s: self.embed(s, getattr(clip, s)) for s in c.streams}
        first = self.param("bottleneck", nn.initializers.normal(0.02), (1, c.bottlenecks, c.width))
        bottlenecks = jnp.tile(first, (len(tokens[c.streams[0]]), 1, 1))
        for layer in range(c.depth):
            blocks = {s: ReferenceBlock(c, name=f"{s}_block_{layer}") for s in c.streams}
            if layer < c.fusion_layer:
                tokens = {s: blocks[s](x) for s, x in tokens.items()}
                continue
            updates = []
            for s, x in tokens.items():
                y = blocks[s](jnp.concatenate([x, bottlenecks], axis=1))
                tokens[s], new = y[:, : x.shape[1]], y[:, x.shape[1] :]
                updates.append(new)
            bottlenecks = jnp.mean(jnp.stack(updates), axis=0)
        norm = nn.LayerNorm(epsilon=1e-6, name="final_norm")
        head = nn.Dense(c.classes, name="head")
        return {s: head(norm(x)[:, 0]) for s, x in tokens.items()}

    def embed(self, stream: str, x: Array) -> Array:
        """[B, N, D]: class token, then the patches; positions added to all."""
        c = self.config
        patch = tuple(c.patch(stream))
        x = nn.Conv(c.width, patch, strides=patch, padding="VALID", name=f"{stream}_embedding")(x)
        x = x.reshape(len(x), -1, c.width)
        token = self.param(f"{stream}_cls", nn.initializers.zeros, (1, 1, c.width))
        x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
        zeros = nn.initializers.zeros
        return x + self.param(f"{stream}_positions", zeros, (1, *x.shape[1:]))


def translated(config: MBTConfig, params: dict) -> dict:
    """Cut and reshape our parameters to those of `ReferenceMBT`."""
    translated_params = {name: leaf for name, leaf in params.items() if "block" not in name}
    for s in config.streams:
        kernel = params[f"{s}_embedding"]["kernel"]
        shape = (*config.patch(s), 3, config.width)
        bias = params[f"{s}_embedding"]["bias"]
        translated_params[f"{s}_embedding"] = {"kernel": kernel.reshape(shape), "bias": bias}
        for layer in range(config.depth):
            name = f"{s}_block_{layer}"
            own = params[name]
            translated_params[name] = {**own, "attention": heads_apart(config, own["attention"])}
    return translated_params


def heads_apart(config: MBTConfig, own: dict) -> dict:
    """Split our one attention matrix into Flax's matrices for query, key and value."""
    shape = (config.heads, config.width // config.heads)
    kernels = jnp.split(own["qkv"]["kernel"], 3, axis=-1)
    biases = jnp.split(own["qkv"]["bias"], 3)
    separate = {
        name: {"kernel": kernel.reshape(-1, *shape), "bias": bias.reshape(shape)}
        for name, kernel, bias in zip(("query", "key", "value"), kernels, biases, strict=True)
    }
    out = own["out"]
    return separate | {"out": {"kernel": out["kernel"].reshape(*shape, -1), "bias": out["bias"]}}
