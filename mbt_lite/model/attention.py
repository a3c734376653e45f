"""Multi-head self-attention and the GELU activation of an MBT block.

Axes: B clips, H heads, d head width, Q queries, K keys, N tokens.

On a CPU, long sequences are attended in blocks of queries with a gradient written by hand, which
needs less memory and time than the plain form; both give the same result (tests/test_attention.py).
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

ROWS = 128  # queries in a block of attention on a CPU
SHORT = 256  # tokens up to which all weights fit the cache anyway
_product = partial(jnp.matmul, preferred_element_type=jnp.float32)


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
        """Return `attention_weights`; hooks of `observe.apply_with_hooks` act here."""
        return attention_weights(q, k)


def fused(q: Array) -> str | None:
    """ "cudnn" where NVIDIA's flash attention can take such queries [B, N, H, d], else None.

    It wants short numbers, heads of up to 128 in steps of 8, and Ampere or later.
    """
    device = jax.local_devices()[0]
    known = "NVIDIA" in device.device_kind and float(device.compute_capability) >= 8.0
    fits = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
    return "cudnn" if known and fits else None
