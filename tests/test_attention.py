"""Attention in blocks, as CPUs do it for long sequences, against attention written out; and the
usual formulation of the model, which the benchmarks hold ours against."""

from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.reference import ReferenceMBT, translated
from mbt_lite.config import WORLD
from mbt_lite.model import attention
from mbt_lite.model.attention import attention_weights, blocked_attention, gelu
from mbt_lite.model.mbt import MBT, blank_clip, init_params, mean_of

SMALL = replace(WORLD, depth=2, fusion_layer=1)

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def plain(q, k, v):
    return (attention_weights(q, k).astype(v.dtype) @ v).swapaxes(1, 2)


def drawn(length: int, dtype: str = "float32"):
    """Queries, keys and values of 2 clips and 3 heads; some scores are large."""
    q, k, v = jax.random.normal(jax.random.key(length), (3, 2, 3, length, 8))
    return tuple(x.astype(dtype) for x in (4 * q, k, v))


@pytest.mark.parametrize("length", [1, 127, 128, 129, 300])
def test_blocked_attention_equals_plain_attention(length):
    qkv = drawn(length)
    np.testing.assert_allclose(jax.jit(blocked_attention)(*qkv), plain(*qkv), atol=5e-6)


def test_blocked_attention_has_the_gradient_of_plain_attention():
    def loss(attend, *qkv):
        return (attend(*qkv) ** 2).sum()

    qkv = drawn(300)
    ours, theirs = (
        jax.jit(jax.grad(partial(loss, attend), argnums=(0, 1, 2)))(*qkv)
        for attend in (blocked_attention, plain)
    )
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-4)


def test_large_scores_do_not_overflow():
    q, k, v = drawn(200)
    result = blocked_attention(1e2 * q, k, v)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, plain(1e2 * q, k, v), atol=2e-3)


def test_bfloat16_stays_bfloat16():
    result = blocked_attention(*drawn(200, "bfloat16"))
    assert result.dtype == jnp.bfloat16
    exact = plain(*(x.astype(jnp.float32) for x in drawn(200, "bfloat16")))
    np.testing.assert_allclose(result.astype(np.float32), exact, atol=0.05)


@pytest.mark.parametrize("dtype, atol", [("float32", 4e-6), ("bfloat16", 0.02)])
def test_the_gradient_of_gelu_is_that_of_its_formula(dtype, atol):
    x = jnp.linspace(-12, 12, 4001, dtype=dtype)
    np.testing.assert_array_equal(gelu(x), nn.gelu(x, approximate=True))
    result = jax.vmap(jax.grad(gelu))(x)
    assert result.dtype == dtype
    exact, c = np.asarray(x, np.float64), np.sqrt(2 / np.pi)
    tanh = np.tanh(c * (exact + 0.044715 * exact**3))
    slope = 0.5 * (1 + tanh) + 0.5 * exact * (1 - tanh**2) * c * (1 + 3 * 0.044715 * exact**2)
    np.testing.assert_allclose(np.asarray(result, np.float64), slope, atol=atol)


def test_gelu_stores_only_its_input():
    def twice(gelu, x):
        return (gelu(gelu(x) @ x) ** 2).sum()

    x = jnp.ones((512, 512))
    sizes = []
    for function in (gelu, partial(nn.gelu, approximate=True)):
        gradient = jax.jit(jax.grad(partial(twice, function))).lower(x).compile()
        sizes.append(gradient.memory_analysis().temp_size_in_bytes)
    assert sizes[0] < sizes[1]


def planned(attend, qkv) -> int:
    """Bytes that a compiled gradient needs besides what it is given."""
    gradient = jax.jit(jax.grad(lambda *x: attend(*x).sum(), argnums=(0, 1, 2)))
    return gradient.lower(*qkv).compile().memory_analysis().temp_size_in_bytes


def test_no_matrix_of_all_pairs_is_in_memory_even_for_the_gradient():
    qkv = drawn(2048)
    pairs = 2 * 3 * 2048**2 * 4  # bytes of all weights
    assert planned(blocked_attention, qkv) < pairs / 10
    assert planned(plain, qkv) > pairs


def drawn_model(config):
    """Parameters whose head tells clips apart, and a clip."""
    params = init_params(config, jax.random.key(0))
    params["head"]["kernel"] = jax.random.normal(jax.random.key(1), params["head"]["kernel"].shape)
    clip = jax.tree.map(lambda x: jax.random.normal(jax.random.key(2), x.shape), blank_clip(config))
    return params, clip


def logits_of(config, params, clip):
    answer = jax.jit(lambda params, clip: MBT(config).apply({"params": params}, clip).logits)
    return answer(params, clip)


@pytest.mark.parametrize("fusion", ["bottleneck", "joint", "late"])
@pytest.mark.full
def test_a_model_gives_the_same_logits_with_blocked_attention(monkeypatch, fusion):
    config = replace(SMALL, fusion=fusion)
    qkv = drawn_model(config)
    plain_logits = logits_of(config, *qkv)
    monkeypatch.setattr(attention, "MAX_PLAIN_TOKENS", 8)
    monkeypatch.setattr(attention, "QUERY_BLOCK", 16)
    blocks = logits_of(config, *qkv)
    np.testing.assert_allclose(blocks, plain_logits, rtol=1e-5, atol=1e-4)
    assert (np.asarray(blocks) != np.asarray(plain_logits)).any()  # another order of additions


@pytest.mark.full
def test_the_usual_formulation_gives_the_same_logits():
    params, clip = drawn_model(SMALL)
    ours = logits_of(SMALL, params, clip)
    usual = jax.jit(ReferenceMBT(SMALL).apply)({"params": translated(SMALL, params)}, clip)
    usual = mean_of(usual)
    np.testing.assert_allclose(usual, ours, rtol=1e-5, atol=1e-5 * np.abs(ours).max())
