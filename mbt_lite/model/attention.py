"""Multi-head self-attention and the GELU activation of an MBT block.

Axes: B clips, H heads, d head width, Q queries, K keys, N tokens, D width.

On a CPU, long sequences are attended in blocks of queries with a gradient written by hand, which
needs less memory and time than the plain form; both give the same result (tests/test_attention.py).
"""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

QUERY_BLOCK = 128  # queries in a block of `blocked_attention`
MAX_PLAIN_TOKENS = 256  # up to this length a CPU's cache holds the whole matrix of weights
matmul = partial(jnp.matmul, preferred_element_type=jnp.float32)


def attention_weights(q: Array, k: Array) -> Array:
    """Softmax attention weights [B, H, Q, K] in float32; each row sums to one.

    q [B, H, Q, d] and k [B, H, K, d] have the heads in front: on a CPU that is several times
    faster than the other order.
    """
    scores = jnp.einsum("bhqd,bhkd->bhqk", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(scores / math.sqrt(q.shape[-1]), axis=-1)


class Attention(nn.Module):
    """Self-attention of one sequence.

    The weights are computed as one matrix where they are observed or the sequence is short.
    Otherwise a CPU runs `blocked_attention`, and an accelerator runs JAX's fused attention.
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
        if drops or observed or on_cpu and length <= MAX_PLAIN_TOKENS:
            weights = self.attention_probs(q, k)  # [B, H, N, K]
            self.sow("intermediates", "weights", weights)
            weights = nn.Dropout(self.dropout, deterministic=not train)(weights)
            y = (weights.astype(v.dtype) @ v).swapaxes(1, 2)  # [B, N, H, d]
        elif on_cpu:
            y = blocked_attention(q, k, v)  # [B, N, H, d]
        else:
            q, k, v = jnp.moveaxis(qkv, 2, 0)  # [B, N, H, d] each
            y = jax.nn.dot_product_attention(q, k, v, implementation=fused_kernel(q))
        return nn.Dense(width, dtype=self.dtype, name="out")(y.reshape(x.shape))  # [B, N, D]

    def attention_probs(self, q: Array, k: Array) -> Array:
        """Return `attention_weights`; hooks of `observe.apply_with_hooks` can replace them."""
        return attention_weights(q, k)


def fused_kernel(q: Array) -> str | None:
    """Return "cudnn" where NVIDIA's flash attention takes queries [B, N, H, d], otherwise None.

    It needs 16-bit numbers, a head width of at most 128 in steps of 8, and an Ampere GPU or later.
    """
    device = jax.local_devices()[0]
    supported = "NVIDIA" in device.device_kind and float(device.compute_capability) >= 8.0
    fits = q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128
    return "cudnn" if supported and fits else None


@jax.custom_vjp
def blocked_attention(q: Array, k: Array, v: Array) -> Array:
    """Attention outputs [B, Q, H, d], computed block by block over the queries, for CPUs.

    The result is that of `attention_weights(q, k) @ v` with the heads moved back, but at most
    [QUERY_BLOCK, K] weights exist at a time, which stay in a core's cache. The backward pass
    recomputes them from the log-sum-exp of each row (Dao et al. 2022, "FlashAttention", B.2).
    """
    return _attend(q, k, v)[0]


@jax.jit  # layers of one size are traced once
def _attend(q: Array, k: Array, v: Array) -> tuple[Array, tuple]:
    """Forward pass of `blocked_attention`: (outputs, residuals of the backward pass)."""

    def attend_head(qkv):
        q_blocks, k, v = qkv
        return jax.lax.map(partial(_attend_block, k, v), q_blocks)

    q_blocks = _split_queries(q / math.sqrt(q.shape[-1]))
    y, log_sums = jax.lax.map(attend_head, (q_blocks, _merge_batch(k), _merge_batch(v)))
    y = _join_queries(y, q.shape).swapaxes(1, 2)  # [B, Q, H, d]
    return y, (q, k, v, y, log_sums)


def _attend_block(k: Array, v: Array, q: Array) -> tuple[Array, Array]:
    """Outputs [Q, d] of a block of queries over k and v [K, d], and log-sum-exp of its scores."""
    scores = matmul(q, k.T)  # [Q, K]
    highest = scores.max(-1, keepdims=True)
    weights = jnp.exp(scores - highest)
    total = weights.sum(-1, keepdims=True)
    y = matmul(weights.astype(v.dtype), v) / total  # divide [Q, d], which is smaller than [Q, K]
    return y.astype(v.dtype), highest + jnp.log(total)


@jax.jit
def _attend_backward(residuals: tuple, cotangent: Array) -> tuple[Array, Array, Array]:
    """Gradients of q, k and v, [B, H, N, d] each, from the cotangent [B, Q, H, d]."""
    q, k, v, y, log_sums = residuals
    scale = 1 / math.sqrt(q.shape[-1])
    means = (y.astype(jnp.float32) * cotangent).sum(-1, keepdims=True).swapaxes(1, 2)
    cotangent = cotangent.swapaxes(1, 2)  # [B, H, Q, d]; means [B, H, Q, 1]

    def backward_head(inputs):
        k, v, blocks = inputs
        zeros = jnp.zeros(k.shape, jnp.float32)
        return jax.lax.scan(partial(_backward_block, k, v), (zeros, zeros), blocks)

    blocks = tuple(map(_split_queries, (scale * q, means, cotangent)))
    (grad_k, grad_v), grad_q = jax.lax.map(
        backward_head, (_merge_batch(k), _merge_batch(v), (log_sums, *blocks))
    )
    grads = scale * _join_queries(grad_q, q.shape), grad_k.reshape(k.shape), grad_v.reshape(v.shape)
    return tuple(grad.astype(q.dtype) for grad in grads)


def _backward_block(k: Array, v: Array, sums: tuple, block: tuple) -> tuple[tuple, Array]:
    """Add one block's gradients of k and v to their sums; also return the gradient of its q."""
    log_sums, q, means, cotangent = block
    weights = jnp.exp(matmul(q, k.T) - log_sums)  # [Q, K]
    grad_scores = (weights * (matmul(cotangent, v.T) - means)).astype(k.dtype)
    grad_k, grad_v = matmul(grad_scores.T, q), matmul(weights.T.astype(v.dtype), cotangent)
    return (sums[0] + grad_k, sums[1] + grad_v), matmul(grad_scores, k)


blocked_attention.defvjp(_attend, _attend_backward)


def _merge_batch(x: Array) -> Array:
    """Reshape [B, H, N, d] to [B H, N, d]."""
    return x.reshape(-1, *x.shape[2:])


def _split_queries(x: Array) -> Array:
    """Reshape [B, H, N, d] to [B H, blocks, QUERY_BLOCK, d], padded with zeros."""
    x = jnp.pad(_merge_batch(x), ((0, 0), (0, -x.shape[2] % QUERY_BLOCK), (0, 0)))
    return x.reshape(len(x), -1, QUERY_BLOCK, x.shape[-1])


def _join_queries(blocks: Array, shape: tuple[int, ...]) -> Array:
    """Undo `_split_queries`: cut the padding off and reshape to [B, H, N, d]."""
    flat = blocks.reshape(len(blocks), -1, blocks.shape[-1])
    return flat[:, : shape[2]].reshape(shape)


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """GELU in its tanh form, as the published weights were trained; the backward pass keeps x."""
    return nn.gelu(x, approximate=True)


def _gelu_backward(x: Array, cotangent: Array) -> tuple[Array]:
    """The gradient of `gelu`, with 0.5 (1 + tanh(u)) written as sigmoid(2 u).

    With a tanh here, XLA would share it with the forward pass and keep it in memory until now.
    """
    x32 = x.astype(jnp.float32)
    scale = 2 * math.sqrt(2 / math.pi)
    gate = jax.nn.sigmoid(scale * (x32 + 0.044715 * x32**3))
    slope = gate + x32 * gate * (1 - gate) * scale * (1 + 3 * 0.044715 * x32**2)
    return ((cotangent * slope).astype(x.dtype),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)
