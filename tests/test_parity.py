"""Our model computes what Scenic's does: golden files, and a float64 restatement for the rest."""

import ast
import itertools
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from unittest.mock import Mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from mbt_lite.checkpoints.io import flatten, from_scenic
from mbt_lite.checkpoints.scenic import POOLS, STREAMS, from_ours
from mbt_lite.config import sampled_frames
from mbt_lite.model.mbt import MBT, Clip, StochasticDepth, init_params

GOLDEN = Path(__file__).parent / "golden"
FORWARD = sorted(p.stem for p in GOLDEN.glob("fwd_*.npz") if p.stem != "fwd_mbtb_light")
GRADIENT = sorted(p.stem for p in GOLDEN.glob("grad_*.npz"))


@cache
def golden(name):
    """(meta, arrays) of a golden file."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return json.loads(str(arrays.pop("meta"))), arrays


def under(arrays, prefix):
    return {k.removeprefix(prefix): x for k, x in arrays.items() if k.startswith(prefix)}


def ours(tree, model, inputs):
    """(config, params, clip) of ours for a Scenic tree, its config and its inputs."""
    shapes = {f"{STREAMS[m]}_shape": x.shape[1:-1] for m, x in inputs.items()}
    config, params = from_scenic(tree, model, **shapes)
    return config, params, Clip(**{STREAMS[m]: x for m, x in inputs.items()})


@cache
def case(name):
    meta, arrays = golden(name)
    return *ours(under(arrays, "params/"), meta["config"], under(arrays, "inputs/")), arrays


jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles sooner


@partial(jit, static_argnums=0)
def run(config, params, clip):
    """Output in evaluation and in training, and all encoded tokens."""
    model, variables = MBT(config), {"params": params}
    evaluated, state = model.apply(variables, clip, mutable=["intermediates"])
    encoded = state["intermediates"]["encoded"][0].values()
    trained = model.apply(variables, clip, train=True)
    return evaluated, trained, jnp.concatenate(list(encoded), axis=1)


@pytest.mark.parametrize("name", FORWARD)
def test_logits_and_tokens_are_those_of_scenic(name, agree):
    config, params, clip, want = case(name)
    output, train, encoded = run(config, params, clip)
    agree("logits", output.logits, want["logits"], 1e-5)
    agree("encoded", encoded, want["encoded"], 5e-5)
    if "train_logits" in want:
        agree("train", train.logits, want["train_logits"], 1e-5)
    for stream, logits in under(want, "train_logits/").items():
        agree(f"train {stream}", train.stream_logits[STREAMS[stream]], logits, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fwd_bottleneck_strong", "fwd_vanilla_shared"])
def test_fused_attention_gives_the_logits_of_scenic(name, agree, monkeypatch):
    config, params, clip, want = case(name)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    taken = Mock(wraps=jax.nn.dot_product_attention)
    monkeypatch.setattr(jax.nn, "dot_product_attention", taken)
    output = MBT(config).apply({"params": params}, clip)
    assert taken.called
    agree("logits", output.logits, want["logits"], 1e-5)


def probe(a):
    return np.sum(a.ravel() * np.cos(0.1 + np.arange(a.size)))


@pytest.mark.slow
def test_the_base_model_at_full_width_gives_the_logits_of_scenic(agree):
    meta, want = golden("fwd_mbtb_light")
    rng, tree = np.random.RandomState(meta["seed"]), {}
    for name, shape in zip(want["param_names"], want["param_shapes"], strict=True):
        z = rng.standard_normal(ast.literal_eval(str(shape)))
        value = 1 + 0.1 * z if name.endswith("/scale") else meta["std"] * z
        tree[str(name)] = np.float32(np.float16(value))
    rng, shapes = np.random.RandomState(meta["seed"] + 100_000), meta["input_shapes"]
    rgb = rng.uniform(-1, 1, shapes["rgb"])
    inputs = {"rgb": rgb, "spectrogram": rng.standard_normal(shapes["spectrogram"])}
    inputs = {k: np.float32(np.float16(x)) for k, x in inputs.items()}
    drawn = [probe(np.float64(inputs[m])) for m in inputs] + [probe(np.float64(tree["cls"]))]
    index = list(want["param_names"]).index("cls")
    np.testing.assert_allclose(drawn, [*want["input_probes"], want["param_probes"][index]])

    config, params, clip = ours(tree, meta["config"], inputs)
    assert sum(x.size for x in jax.tree.leaves(params)) == want["n_params"] == 173_215_247
    output = jit(MBT(config).apply)({"params": params}, clip)
    agree("logits", output.logits, want["logits"], 2e-5)
    for stream, logits in under(want, "train_logits/").items():
        agree(stream, output.stream_logits[STREAMS[stream]], logits, 2e-5)


def sigmoid_loss(logits, labels, smoothing=0.0, mask=None):
    labels = labels * (1 - smoothing) + smoothing / labels.shape[-1]
    losses = -labels * jax.nn.log_sigmoid(logits) - (1 - labels) * jax.nn.log_sigmoid(-logits)
    mask = jnp.ones(len(labels)) if mask is None else mask
    return (losses.sum(-1) * mask).sum() / (mask.sum() + 1e-8)


def in_scenic_names(tree, config):
    """{Scenic's name: array in Scenic's shape} of our parameters, or of their gradients."""
    named = {}
    for name, x in flatten(tree):
        named |= from_ours(name, np.asarray(x), config)
    return named


@pytest.mark.parametrize("when", ["eval", "train"])
@pytest.mark.parametrize("name", GRADIENT)
def test_gradients_are_those_of_scenic(name, when, agree):
    config, params, clip, want = case(name)
    labels = under(want, "labels/")

    def loss(params):
        output = MBT(config).apply({"params": params}, clip, train=when == "train")
        if when == "eval":
            return sigmoid_loss(output.logits, labels["eval"])
        return sum(
            sigmoid_loss(output.stream_logits[s], labels[m], 0.3, want["batch_mask"]) / 2
            for m, s in STREAMS.items()
        )

    value, gradient = jit(jax.value_and_grad(loss))(params)
    got = in_scenic_names(gradient, config)
    names = list(want[f"grad_{when}/names"])
    norms, probes = want[f"grad_{when}/norms"], want[f"grad_{when}/probes"]
    assert sorted(got) == sorted(names)
    agree("loss / loss", value / want[f"loss_{when}"], 1.0, 1e-5)
    scale = norms.max()
    agree("norms / largest", [np.linalg.norm(got[k]) / scale for k in names], norms / scale, 1e-5)
    agree("probes / largest", [probe(got[k]) / scale for k in names], probes / scale, 1e-5)
    full = under(want, f"grad_{when}/full/")
    agree("leaves", max(np.abs(got[k] - x).max() for k, x in full.items()), 0.0, 5e-6)


@pytest.mark.full
def test_stochastic_depth_drops_the_branches_that_scenic_drops(agree):
    config, params, clip, want = case("drop_bottleneck")
    scenic = {"spec": "spectrogram", "rgb": "rgb", "attention_drop": "attn", "mlp_drop": "mlp"}
    used = []

    def recorded(call, args, kwargs, context):
        if not isinstance(context.module, StochasticDepth) or context.module.rate == 0:
            return call(*args, **kwargs)
        block, branch = context.module.path
        stream, _, layer = block.split("_")
        used.append(f"drop/{layer}/{scenic[stream]}/{scenic[branch]}")
        return args[0] * (1 - want[used[-1]][:, None, None])

    with nn.intercept_methods(recorded):
        output = jit(partial(MBT(config).apply, train=True))({"params": params}, clip)
    assert sorted(used) == sorted(k for k in want if k.startswith("drop/"))
    evaluated = jit(MBT(config).apply)({"params": params}, clip)
    agree("eval", evaluated.logits, want["logits"], 1e-5)
    for stream, logits in under(want, "train_logits/").items():
        agree(stream, output.stream_logits[STREAMS[stream]], logits, 1e-5)


def test_sampled_frames_are_exactly_those_of_scenic():
    _, want = golden("temporal_indices")
    pairs = itertools.product(enumerate(want["num_frames"]), enumerate(want["n_sampled"]))
    for (i, frames), (j, wanted) in pairs:
        indices = want["indices"][i, j, : want["count"][i, j]]
        np.testing.assert_array_equal(sampled_frames(int(frames), int(wanted)), indices)


# The model once more, in float64 NumPy, from its description and in Scenic's names.


def np_norm(p, x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def np_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def np_block(p, x):
    p = {k: under(p, f"{k}/") for k in ("LayerNorm_0", "LayerNorm_1")} | p
    attention = {k: x for k, x in under(p, "MultiHeadDotProductAttention_0/").items()}
    y = np_norm(p["LayerNorm_0"], x)
    q, k, v = (
        np.einsum("bnd,dhe->bhne", y, attention[f"{part}/kernel"])
        + attention[f"{part}/bias"][None, :, None]
        for part in ("query", "key", "value")
    )
    weights = np.exp(q @ np.swapaxes(k, -1, -2) / np.sqrt(q.shape[-1]))
    weights /= weights.sum(-1, keepdims=True)
    x = x + np.einsum("bhne,hed->bnd", weights @ v, attention["out/kernel"]) + attention["out/bias"]
    y = np_norm(p["LayerNorm_1"], x)
    y = np_gelu(y @ p["MlpBlock_0/Dense_0/kernel"] + p["MlpBlock_0/Dense_0/bias"])
    return x + y @ p["MlpBlock_0/Dense_1/kernel"] + p["MlpBlock_0/Dense_1/bias"]


def np_embed(p, model, modality, x):
    suffix = "" if modality == "rgb" else f"_{modality}"
    kernel = p[f"embedding{suffix}/kernel"]
    if modality == "rgb" and kernel.ndim == 4:
        kernel, step = kernel[None], x.shape[1] / (model["n_sampled_frames"] + 1)
        times = np.round(np.arange(step, x.shape[1], step, dtype=np.float32)).astype(int)
        x = x[:, np.clip(times, 0, x.shape[1] - 1)]
    size = kernel.shape[:-2]
    corners = [range(0, n - s + 1, s) for n, s in zip(x.shape[1:], size, strict=False)]
    tokens = [
        np.tensordot(
            x[(slice(None), *(slice(c, c + s) for c, s in zip(corner, size, strict=True)))],
            kernel,
            len(size) + 1,
        )
        for corner in itertools.product(*corners)
    ]
    x = np.stack(tokens, 1) + p[f"embedding{suffix}/bias"]
    if model["classifier"] == "token":
        alone = len(model["modality_fusion"]) == 1 or modality == "rgb"
        cls = p["cls" if alone else f"cls{modality}"]
        x = np.concatenate([np.repeat(cls, len(x), 0), x], 1)
    return x + p[f"Transformer/posembed_input{suffix}/pos_embedding"]


def np_mbt(p, model, inputs):
    """(logits, {modality: logits}) by REFERENCE semantics; a missing modality is left out."""
    p = {k: np.float64(x) for k, x in p.items()}
    order = [m for m in model["modality_fusion"] if m in inputs]
    x = {m: np_embed(p, model, m, np.float64(inputs[m])) for m in order}
    bottleneck = np.repeat(p["bottleneck"], len(x[order[0]]), 0) if "bottleneck" in p else None

    def block(layer, modality, y):
        shared = modality == "rgb" or model["share_encoder"]
        name = f"Transformer/encoderblock_{layer}{'' if shared else '_' + modality}/"
        return np_block(under(p, name), y)

    for layer in range(model["num_layers"]):
        alone = layer < model["fusion_layer"] or len(model["modality_fusion"]) == 1
        off = model["use_bottleneck"] and not model["test_with_bottlenecks"]
        if alone or off:
            x = {m: block(layer, m, x[m]) for m in order}
        elif model["use_bottleneck"]:
            y = {m: block(layer, m, np.concatenate([x[m], bottleneck], 1)) for m in order}
            bottleneck = np.mean([y[m][:, x[m].shape[1] :] for m in order], 0)
            x = {m: y[m][:, : x[m].shape[1]] for m in order}
        elif model["share_encoder"]:
            y = block(layer, "rgb", np.concatenate([x[m] for m in order], 1))
            cuts = np.cumsum([x[m].shape[1] for m in order])[:-1]
            x = dict(zip(order, np.split(y, cuts, 1), strict=True))
        else:
            context = {m: [x[o] for o in order if o != m] for m in order}
            y = {m: block(layer, m, np.concatenate([*context[m], x[m]], 1)) for m in order}
            x = {m: y[m][:, -x[m].shape[1] :] for m in order}

    def classify(tokens):
        pool = {"token": lambda t: t[:, 0], "gap": lambda t: t.mean(1)}
        pool |= {"gmp": lambda t: t.max(1), "gsp": lambda t: t.sum(1)}
        y = pool[model["classifier"]](np_norm(under(p, "Transformer/encoder_norm/"), tokens))
        if model["representation_size"]:
            y = np.tanh(y @ p["pre_logits/kernel"] + p["pre_logits/bias"])
        return y @ p["output_projection/kernel"] + p["output_projection/bias"]

    each = {m: classify(x[m]) for m in order}
    if model["classifier"] == "token":
        return np.mean(list(each.values()), 0), each
    return classify(np.concatenate([x[m] for m in order], 1)), each


@pytest.mark.parametrize("name", FORWARD)
def test_the_restatement_in_numpy_is_scenics_model(name, agree):
    meta, want = golden(name)
    tree, inputs = under(want, "params/"), under(want, "inputs/")
    agree("logits", np_mbt(tree, meta["config"], inputs)[0], want["logits_f64"], 1e-12)


VARIANTS = {  # name: changes to TINY
    "cross": {"fusion": "joint"},
    "cross_max": {"fusion": "joint", "pool": "max"},
    "vanilla_sum": {"fusion": "joint", "shared_encoder": True, "fusion_layer": 0, "pool": "sum"},
    "shared_bottleneck": {"shared_encoder": True},
    "one_early_bottleneck": {"fusion_layer": 0, "bottlenecks": 1},
    "mean_of_representation": {"pool": "mean", "representation": 6},
    "not_tiling": {"rgb_shape": (5, 23, 29), "spec_shape": (35, 16)},
}


def variant(name):
    """(our config, random parameters, a clip; Scenic's tree, its config, its inputs)."""
    config, rng = replace(TINY, **VARIANTS[name]), np.random.default_rng(len(name))
    shapes = jax.eval_shape(partial(init_params, config), jax.random.key(0))
    leaves, tree = jax.tree.flatten(shapes)
    params = tree.unflatten([0.15 * rng.normal(size=x.shape).astype("f4") for x in leaves])
    clip = Clip(
        **{s: rng.normal(size=(2, *config.shape(s), 3)).astype("f4") for s in config.streams}
    )
    modalities = {ours: theirs for theirs, ours in STREAMS.items()}
    model = {
        "modality_fusion": [modalities[s] for s in config.streams],
        "num_layers": config.depth,
        "fusion_layer": config.fusion_layer,
        "use_bottleneck": config.fusion == "bottleneck",
        "test_with_bottlenecks": config.bottlenecks_at_test,
        "share_encoder": config.shared_encoder,
        "classifier": next(theirs for theirs, ours in POOLS.items() if ours == config.pool),
        "representation_size": config.representation,
    }
    inputs = {modalities[s]: getattr(clip, s) for s in config.streams}
    return config, params, clip, in_scenic_names(params, config), model, inputs


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.full
def test_variants_without_a_file_follow_the_restatement(name, agree):
    config, params, clip, tree, model, inputs = variant(name)
    output = run(config, params, clip)[0]
    logits, each = np_mbt(tree, model, inputs)
    agree("logits", output.logits, logits, 1e-5)
    for modality, stream_logits in each.items():
        agree(modality, output.stream_logits[STREAMS[modality]], stream_logits, 1e-5)


@pytest.mark.parametrize("missing", ["rgb", "spectrogram"])
@pytest.mark.parametrize("name", ["cross", "shared_bottleneck"])
def test_a_missing_stream_leaves_the_other_with_the_bottlenecks(name, missing, agree):
    config, params, clip, tree, model, inputs = variant(name)
    clip = clip._replace(**{STREAMS[missing]: None})
    output = jit(MBT(config).apply)({"params": params}, clip)
    del inputs[missing]
    agree("logits", output.logits, np_mbt(tree, model, inputs)[0], 1e-5)
    assert STREAMS[missing] not in output.stream_logits
