"""The wiring of the model: which tokens attend to which from which block on, and its outputs."""

from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace
from unittest.mock import Mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from mbt_lite.checkpoints.io import flatten
from mbt_lite.config import BASE
from mbt_lite.model.attention import Attention, fused_kernel
from mbt_lite.model.mbt import MBT, Clip, StochasticDepth, init_params
from mbt_lite.model.observe import attention_rows

pytestmark = pytest.mark.usefixtures("compiled_quickly")

jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles sooner


@cache
def params_of(config):
    """Random parameters, far from the symmetry of fresh ones, and sooner made."""
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    return tree.unflatten([0.25 * rng.normal(size=x.shape).astype("f4") for x in leaves])


def clip_for(config, batch=2, seed=1):
    rng = np.random.default_rng(seed)
    shapes = {s: (batch, *config.shape(s), 3) for s in ("rgb", "spec")}
    return Clip(**{s: rng.normal(size=shape).astype("f4") for s, shape in shapes.items()})


@partial(jit, static_argnums=(0, 3))
def run(config, params, clip, train=False, seed=0):
    rngs = {"dropout": jax.random.key(seed)}
    return MBT(config).apply({"params": params}, clip, train, rngs=rngs)


@partial(jit, static_argnums=0)
def observe(config, params, clip):
    """(Output, all intermediates that the model sows)."""
    output, state = MBT(config).apply({"params": params}, clip, mutable=["intermediates"])
    return output, state["intermediates"]


@pytest.mark.parametrize(
    ("fusion", "first"),
    [("bottleneck", TINY.fusion_layer + 1), ("joint", TINY.fusion_layer), ("late", TINY.depth)],
)
def test_audio_reaches_video_one_block_after_fusion_through_the_bottleneck(fusion, first):
    config = replace(TINY, fusion=fusion)
    params, clip = params_of(config), clip_for(config)
    _, quiet = observe(config, params, clip)
    _, loud = observe(config, params, clip._replace(spec=clip.spec + 1))
    pairs = zip(quiet["tokens"], loud["tokens"], strict=True)
    changed = [not np.array_equal(a["rgb"], b["rgb"]) for a, b in pairs]
    assert changed == [layer >= first for layer in range(config.depth)]


def test_bottlenecks_off_at_test_leave_the_streams_apart():
    config = replace(TINY, bottlenecks_at_test=False)
    params, clip = params_of(config), clip_for(config)
    other = clip._replace(spec=clip.spec + 1)
    for train in (False, True):
        seen, heard = (run(config, params, c, train).stream_logits["rgb"] for c in (clip, other))
        assert np.array_equal(seen, heard) == (not train)


@pytest.mark.full
def test_the_order_of_the_streams_does_not_matter():
    params, clip = params_of(TINY), clip_for(TINY)
    for config in (TINY, replace(TINY, pool="max")):
        params = params_of(config)
        swapped = replace(config, streams=config.streams[::-1])
        a, b = run(config, params, clip).logits, run(swapped, params, clip).logits
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"fusion_layer": 0},
        {"fusion": "joint", "pool": "mean"},
        {"bottlenecks_at_test": False},
        {"streams": ("rgb",)},
    ],
    ids=str,
)
def test_going_on_from_the_prefix_equals_the_whole_pass(fields):
    config = replace(TINY, **fields)
    params, clip, other = params_of(config), clip_for(config), clip_for(config, seed=2)
    apply = partial(MBT(config).apply, {"params": params})
    prefix = apply(clip, prefix=True)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), apply(clip), apply(prefix))
    mixed = apply(prefix._replace(rgb=apply(other, prefix=True).rgb))
    expected = apply(clip._replace(rgb=other.rgb))
    np.testing.assert_allclose(mixed.logits, expected.logits, atol=1e-6)


def test_the_clip_is_not_modified():
    clip = clip_for(TINY)
    for array in clip:
        array.flags.writeable = False
    before = [x.copy() for x in clip]
    jit(MBT(TINY).apply)({"params": params_of(TINY)}, clip)
    assert all(np.array_equal(a, b) for a, b in zip(before, clip, strict=True))


def test_attention_written_out_and_fused_equal_flax(monkeypatch):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 9, 16)), jnp.float32)
    ours, flax = Attention(4, 0.0, "float32"), nn.MultiHeadDotProductAttention(4)
    params = flax.init(jax.random.key(0), x)["params"]
    parts = [params[part]["kernel"].reshape(16, 16) for part in ("query", "key", "value")]
    params_ours = {
        "qkv": {"kernel": jnp.concatenate(parts, axis=1), "bias": jnp.zeros(48)},
        "out": {"kernel": params["out"]["kernel"].reshape(16, 16), "bias": jnp.zeros(16)},
    }
    expected = flax.apply({"params": params}, x)
    written, state = ours.apply({"params": params_ours}, x, False, mutable=["intermediates"])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # where the fused one is taken
    taken = Mock(wraps=jax.nn.dot_product_attention)
    monkeypatch.setattr(jax.nn, "dot_product_attention", taken)
    quick = ours.apply({"params": params_ours}, x, False)
    assert taken.called
    np.testing.assert_allclose(written, expected, atol=1e-5)
    np.testing.assert_allclose(quick, expected, atol=1e-5)
    weights = state["intermediates"]["weights"][0]
    assert weights.shape == (2, 4, 9, 9)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize(
    "kind, ability, dtype, width, expected",
    [
        ("NVIDIA H200", "9.0", "bfloat16", 64, "cudnn"),
        ("NVIDIA A100-SXM4-40GB", "8.0", "float16", 128, "cudnn"),
        ("NVIDIA A100-SXM4-40GB", "8.0", "float32", 64, None),
        ("Tesla T4", "7.5", "bfloat16", 64, None),
        ("NVIDIA H200", "9.0", "bfloat16", 136, None),
        ("NVIDIA H200", "9.0", "bfloat16", 20, None),
        ("TPU v5 lite", None, "bfloat16", 64, None),
        ("cpu", None, "bfloat16", 64, None),
    ],
)
def test_flash_attention_is_used_only_where_it_runs(
    monkeypatch, kind, ability, dtype, width, expected
):
    device = SimpleNamespace(device_kind=kind, compute_capability=ability)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert fused_kernel(jnp.zeros((1, 2, 3, width), dtype)) == expected


FUSIONS = {
    "bottleneck": {},
    "shared bottleneck": {"shared_encoder": True},
    "joint": {"fusion": "joint"},
    "shared joint": {"fusion": "joint", "shared_encoder": True},
    "late": {"fusion": "late"},
    "audio only": {"streams": ("spec",)},
}


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.full
def test_observing_attention_does_not_change_the_output(name):
    config = replace(TINY, **FUSIONS[name])
    params, clip = params_of(config), clip_for(config)
    plain, (seen, _) = run(config, params, clip), observe(config, params, clip)
    output, rows = attention_rows(MBT(config), params, clip, "cls")
    for other in (seen, output):
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), plain, other)
    assert {s: x.shape for s, x in rows.items()} == {
        s: (2, config.depth, 2, 1, config.patches(s)) for s in config.streams
    }
    assert all(float(x.min()) > 0 and float(x.sum(-1).max()) < 1 for x in rows.values())


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.full
def test_the_bottlenecks_rows_are_cut_from_the_captured_maps(shared):
    config = replace(TINY, shared_encoder=shared)
    params, clip = params_of(config), clip_for(config)
    _, seen = observe(config, params, clip)
    _, rows = attention_rows(MBT(config), params, clip, "bottleneck", (1, -1))
    for i, s in enumerate(config.streams):
        for row, layer in enumerate((1, 2)):
            if shared:
                weights = seen[f"block_{layer}"]["attention"]["weights"][i]
            else:
                weights = seen[f"{s}_block_{layer}"]["attention"]["weights"][0]
            np.testing.assert_allclose(rows[s][:, row], weights[:, :, -3:, 1:-3], atol=1e-6)


def test_rows_of_missing_tokens_are_refused():
    rows = partial(attention_rows, MBT(TINY), params_of(TINY), clip_for(TINY))
    with pytest.raises(ValueError, match=r"in layers \[1, 2\]"):
        rows("bottleneck", (0,))
    with pytest.raises(ValueError, match="'bottleneck', 'cls', 'mean' or a patch"):
        rows("patch")
    with pytest.raises(ValueError, match="no class token"):
        config = replace(TINY, pool="mean")
        attention_rows(MBT(config), params_of(config), clip_for(config), "cls")


def test_a_clip_that_does_not_fit_is_refused_in_a_sentence():
    params, clip = params_of(TINY), clip_for(TINY)
    with pytest.raises(ValueError, match="none of the model's streams"):
        MBT(TINY).apply({"params": params}, Clip())
    with pytest.raises(ValueError, match=r"clip.rgb has shape .* needs \[clips, 4, 16, 24, 3\]"):
        MBT(TINY).apply({"params": params}, clip._replace(rgb=clip.rgb[:, :2]))
    with pytest.raises(ValueError, match=r"clip.spec has shape \(32, 16, 3\)"):
        MBT(TINY).apply({"params": params}, clip._replace(spec=clip.spec[0]))


@pytest.mark.slow
def test_dropout_follows_its_key_and_stops_at_evaluation():
    tiny = replace(TINY, depth=2)
    config = replace(tiny, dropout=0.2, attention_dropout=0.2, drop_path=0.2)
    params, clip = params_of(config), clip_for(config)
    first, again, other = (run(config, params, clip, True, seed).logits for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.allclose(first, other)
    np.testing.assert_allclose(
        run(config, params, clip).logits, run(tiny, params, clip).logits, atol=1e-6
    )


def test_stochastic_depth_drops_whole_clips_and_keeps_the_rest_unscaled():
    branch, key = jnp.ones((2000, 3, 4)), jax.random.key(0)
    kept = StochasticDepth(0.3).apply({}, branch, True, rngs={"dropout": key})
    assert set(np.unique(kept)) == {0.0, 1.0}
    assert np.all(kept == kept[:, :1, :1])
    assert abs(float(kept.mean()) - 0.7) < 0.03


@pytest.mark.parametrize("shared", [False, True])
def test_every_stream_and_branch_draws_for_itself_and_more_often_in_later_blocks(shared):
    config = replace(TINY, drop_path=0.8, shared_encoder=shared)
    rates = []

    @jit
    def drawn(params, clip):
        draws = []

        def recorded(call, args, kwargs, context):
            out = call(*args, **kwargs)
            if isinstance(context.module, StochasticDepth):
                rates.append(context.module.rate)
                draws.append(jnp.any(out != 0, axis=(1, 2)))
            return out

        with nn.intercept_methods(recorded):
            rngs = {"dropout": jax.random.key(0)}
            MBT(config).apply({"params": params}, clip, True, rngs=rngs)
        return jnp.stack(draws)  # [layers x streams x branches, B]

    draws = np.asarray(drawn(params_of(config), clip_for(config, 32)))
    np.testing.assert_allclose(rates, np.repeat([0, 0.4, 0.8], 4))
    assert draws[:4].all()
    assert len(np.unique(draws[4:], axis=0)) == 8


def test_bfloat16_stays_inside_the_blocks():
    config = replace(TINY, dtype="bfloat16")
    params, clip = params_of(TINY), clip_for(TINY)
    low, high = run(config, params, clip), run(TINY, params, clip)
    assert low.logits.dtype == low.features.dtype == jnp.float32
    assert not np.array_equal(low.logits, high.logits)
    np.testing.assert_allclose(low.logits, high.logits, atol=0.1)
    params = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}


@pytest.mark.full
def test_initial_features_have_unit_scale_and_the_head_is_zero():
    params = init_params(TINY, jax.random.key(0))
    output = run(TINY, params, clip_for(TINY))
    assert not np.any(output.logits) and 0.5 < float(np.std(output.features)) < 2
    blocks = [params[f"rgb_block_{i}"]["mlp_in"]["kernel"] for i in range(TINY.depth)]
    assert all(not np.array_equal(blocks[0], other) for other in blocks[1:])


LIGHT = {"rgb_shape": (8, 224, 224), "rgb_patch": (1, 16, 16)}
COUNTS = {  # REFERENCE: parameters of Scenic's model at full size
    "B=4": ({}, 175_009_295),
    "cross": ({"fusion": "joint"}, 175_005_455),
    "vanilla": ({"fusion": "joint", "shared_encoder": True}, 89_950_991),
    "audio": ({"streams": ("spec",)}, 86_360_591),
    "8 frames": (LIGHT, 173_215_247),
}


@pytest.mark.parametrize("name", COUNTS)
def test_full_size_models_have_the_parameters_of_scenics(name):
    changes, count = COUNTS[name]
    shapes = jax.eval_shape(partial(init_params, replace(BASE, **changes)), jax.random.key(0))
    assert sum(x.size for _, x in flatten(shapes)) == count
