"""A model starts from an image ViT of Scenic, big_vision, Hugging Face or timm."""

import json
import re
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from mbt_lite import from_vit
from mbt_lite.checkpoints import scenic
from mbt_lite.checkpoints.io import to_scenic
from mbt_lite.config import MBTConfig
from mbt_lite.model.mbt import MBT, Clip

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("compiled_quickly")]

GOLDEN = Path(__file__).parent / "golden"
IMAGE = MBTConfig(  # the golden ViT as a model of one frame
    streams=("rgb",),
    classes=6,
    width=12,
    depth=2,
    heads=2,
    mlp_dim=20,
    fusion="late",
    fusion_layer=2,
    rgb_shape=(1, 16, 16),
    rgb_patch=(1, 4, 4),
)
VIDEO = replace(
    IMAGE,
    streams=("spec", "rgb"),
    classes=3,
    fusion="bottleneck",
    fusion_layer=1,
    rgb_shape=(4, 16, 16),
    rgb_patch=(2, 4, 4),
    spec_shape=(24, 20),
    spec_patch=(4, 4),
)
POSITIONS = "Transformer/posembed_input/pos_embedding"


def golden(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return json.loads(str(arrays.pop("meta"))), arrays


def under(arrays, prefix):
    return {k.removeprefix(prefix): x for k, x in arrays.items() if k.startswith(prefix)}


@pytest.fixture(scope="module")
def vit():
    return under(golden("ckpt_vit_scenic_expected")[1], "params/")


def stored(path, arrays):
    np.savez(path, **arrays)
    return path


def config_of(mbt, dataset):
    """Ours for the configuration in a golden file's meta."""
    *sides, frames = mbt["patches"]
    fields = scenic.config_fields(mbt) | {
        "classes": mbt["num_classes"],
        "width": mbt["hidden_size"],
        "heads": mbt["num_heads"],
        "mlp_dim": mbt["mlp_dim"],
        "bottlenecks": mbt["n_bottlenecks"] + 1,
        "rgb_shape": (dataset["num_frames"], dataset["crop_size"], dataset["crop_size"]),
        "rgb_patch": (frames, *sides),
        "spec_patch": tuple(sides),
    }
    rows, mels = dataset["spec_shape"]
    return MBTConfig(**fields, spec_shape=(rows * dataset["num_spec_frames"], mels))


@pytest.mark.parametrize(
    "name, inflate", [("init_resize_tile", "central"), ("init_rgb_only_average", "average")]
)
def test_a_model_starts_as_scenics_does(name, inflate, tmp_path, record_property):
    meta, arrays = golden(name)
    config = config_of(meta["mbt"], meta["dataset_configs"])
    source = stored(tmp_path / "vit.npz", under(arrays, "vit/"))
    params = from_vit(source, config, inflate=inflate, audio_cls="zeros")
    got, expected = to_scenic(config, params), under(arrays, "out/")
    assert got.keys() == expected.keys()
    for name in meta["unchanged"]:  # Scenic left these as they were; ours start with zeros
        assert not got.pop(name).any()
    error = max(np.abs(x - expected[name]).max() for name, x in got.items())
    record_property("error params", f"{error:.0e}")
    assert error <= 1e-6
    copied = [k for k in got if "encoder" in k or k.endswith("bias") or k == "cls"]
    assert len(copied) > 30 and all(np.array_equal(got[k], expected[k]) for k in copied)


def with_head(params, theirs):
    """Parameters with the ViT's own head, which `from_vit` drops."""
    return params | {"head": {k: theirs[f"output_projection/{k}"] for k in ("kernel", "bias")}}


@pytest.mark.parametrize(
    "source, expected, representation",
    [
        ("ckpt_vit_scenic", "ckpt_vit_scenic_expected", None),
        ("vit_npz.npz", "vit_npz_expected", 10),
    ],
)
def test_an_image_vit_gives_scenics_logits_on_one_frame(
    source, expected, representation, record_property
):
    arrays = golden(expected)[1]
    theirs, image = under(arrays, "params/"), arrays["inputs/image"]
    config = replace(IMAGE, representation=representation)
    params = with_head(from_vit(GOLDEN / source, config), theirs)
    got = {k: x for k, x in to_scenic(config, params).items() if k != "embedding/kernel"}
    assert all(np.array_equal(x, theirs[k]) for k, x in got.items())
    logits = MBT(config).apply({"params": params}, Clip(rgb=image[:, None])).logits
    error = np.abs(logits - arrays["logits"]).max()
    record_property("error logits", f"{error:.0e}")
    assert error <= 1e-5


def prelinen(vit):
    """The names from before Linen: one count for all classes in a block."""
    for linen, old in (
        ("MlpBlock_0", "MlpBlock_3"),
        ("LayerNorm_1", "LayerNorm_2"),
        ("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1"),
    ):
        vit = {name.replace(linen, old): x for name, x in vit.items()}
    return vit


def as_big_vision(vit):
    heads = {k.replace("output_projection", "head"): x for k, x in prelinen(vit).items()}
    return {f"opt/target/{k}": x for k, x in heads.items()} | {"opt/state/step": np.int32(7)}


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        jax.tree.leaves(jax.tree.map(np.array_equal, a, b))
    )


def test_the_names_of_big_vision_give_the_same_start(vit, tmp_path):
    source = stored(tmp_path / "vit.npz", as_big_vision(vit))
    assert same(from_vit(source, VIDEO), from_vit(GOLDEN / "ckpt_vit_scenic", VIDEO))


def test_both_streams_get_the_whole_vit(vit):
    arrays = to_scenic(VIDEO, from_vit(GOLDEN / "ckpt_vit_scenic", VIDEO))
    for name, array in vit.items():
        if "encoderblock" in name:
            audio = re.sub(r"(encoderblock_\d+)", r"\1_spectrogram", name)
            assert np.array_equal(arrays[name], array) and np.array_equal(arrays[audio], array)
    assert np.array_equal(arrays["clsspectrogram"], vit["cls"])
    assert np.array_equal(arrays["embedding_spectrogram/kernel"], vit["embedding/kernel"])
    assert not arrays["output_projection/kernel"].any()


def start(config=VIDEO, **options):
    return to_scenic(config, from_vit(GOLDEN / "ckpt_vit_scenic", config, **options))


@pytest.mark.parametrize("frames", [2, 3, 4])
def test_patch_kernels_are_inflated_as_documented(frames, vit):
    config = replace(VIDEO, rgb_shape=(12, 16, 16), rgb_patch=(frames, 4, 4))
    kernel = vit["embedding/kernel"]
    inflated = {
        how: start(config, inflate=how)["embedding/kernel"] for how in ("central", "average", "arp")
    }
    assert np.array_equal(inflated["central"][frames // 2], kernel)
    assert np.count_nonzero(inflated["central"]) == np.count_nonzero(kernel)
    np.testing.assert_allclose(inflated["average"].sum(0), kernel, atol=1e-6)
    np.testing.assert_allclose(inflated["arp"].sum(0), 0 * kernel, atol=1e-6)  # of still frames

    def weight(t):  # Bilen et al. 2018, equation 3, written out
        harmonic = [sum(1 / i for i in range(1, n + 1)) for n in (frames, t - 1)]
        return 2 * (frames - t + 1) - (frames + 1) * (harmonic[0] - harmonic[1])

    pooled = [kernel * weight(t) / frames for t in range(1, frames + 1)]
    np.testing.assert_allclose(inflated["arp"], pooled, atol=1e-6)


def test_positions_repeat_over_time_behind_the_class_tokens(vit):
    table, arrays = vit[POSITIONS][0], start()
    assert np.array_equal(arrays[POSITIONS][0], [table[0], *table[1:], *table[1:]])
    spec = arrays["Transformer/posembed_input_spectrogram/pos_embedding"][0]
    assert spec.shape == (1 + 6 * 5, 12) and np.array_equal(spec[0], table[0])
    np.testing.assert_allclose(spec[[1, 5, -5, -1]], table[[1, 4, -4, -1]], atol=1e-6)  # corners


@pytest.mark.parametrize("count", [1, 4, 5, 9, 10])
def test_the_bottleneck_starts_from_positions(count, vit):
    bottleneck = start(replace(VIDEO, bottlenecks=count))["bottleneck"]
    assert bottleneck.shape == (1, count, 12)
    assert np.array_equal(bottleneck[0, 0], vit[POSITIONS][0, 0])
    assert np.array_equal(bottleneck[0, -1], vit[POSITIONS][0, -1]) == (count > 4)


def test_a_gaussian_bottleneck_has_the_papers_width_and_any_number_of_tokens():
    with pytest.raises(ValueError, match="bottlenecks=33 cannot .*31 are possible"):
        start(replace(VIDEO, bottlenecks=33))
    wide = replace(VIDEO, bottlenecks=2_001)
    one, again, other = (start(wide, bottleneck="normal", seed=s)["bottleneck"] for s in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert abs(one.std() - 0.02) < 0.0005 and abs(one.mean()) < 0.0005


def test_models_and_vits_with_and_without_class_token_fit_together(vit, tmp_path):
    pooled = replace(VIDEO, pool="mean", bottlenecks=4)
    arrays = start(pooled)
    assert "cls" not in arrays and arrays[POSITIONS].shape == (1, 32, 12)
    assert np.array_equal(arrays[POSITIONS][0, :16], vit[POSITIONS][0, 1:])
    headless = {k: x for k, x in vit.items() if k != "cls"} | {POSITIONS: vit[POSITIONS][:, 1:]}
    source = stored(tmp_path / "gap.npz", headless)
    assert np.array_equal(to_scenic(pooled, from_vit(source, pooled))[POSITIONS], arrays[POSITIONS])
    token = to_scenic(VIDEO, from_vit(source, VIDEO))
    assert not token["cls"].any() and not token[POSITIONS][0, 0].any()
    assert np.array_equal(token[POSITIONS][0, 1:], start()[POSITIONS][0, 1:])


def test_all_sizes_that_differ_are_named_at_once():
    with pytest.raises(ValueError, match="inflate='other' is none of central, average, arp"):
        start(inflate="other")
    other = replace(
        VIDEO, width=16, depth=3, heads=4, mlp_dim=8, rgb_patch=(2, 8, 8), spec_patch=(4, 2)
    )
    with pytest.raises(ValueError) as refusal:
        start(other)
    for size in ("width 12 .* 16", "depth 2 .* 3", "heads 2 .* 4", "mlp_dim 20 .* 8"):
        assert refusal.match(size)
    assert refusal.match(r"rgb patch \(4, 4\) .* \(8, 8\)")
    assert refusal.match(r"spec patch \(4, 4\) .* \(4, 2\)")


def lose(vit):
    return {k: x for k, x in vit.items() if k != "Transformer/encoderblock_1/LayerNorm_1/bias"}


MISFITS = {
    "missing .1.: Transformer/encoderblock_1/LayerNorm_1/bias": lose,
    "unused .1.: dist_token": lambda vit: vit | {"dist_token": vit["cls"]},
    "mis-shaped .1.: Transformer/encoder_norm/bias": lambda vit: (
        vit | {"Transformer/encoder_norm/bias": np.zeros((2, 6), "f4")}
    ),
    "no square grid": lambda vit: vit | {POSITIONS: vit[POSITIONS][:, :-1]},
    "is no ViT of a known layout": lambda vit: {"weights": vit["cls"]},
    "rgb patch .1, 4, 4. where": lambda vit: (
        vit | {"embedding/kernel": vit["embedding/kernel"][None]}
    ),
}


@pytest.mark.parametrize("message", MISFITS)
def test_a_vit_that_does_not_fit_is_refused_by_name(message, vit, tmp_path):
    source = stored(tmp_path / "vit.npz", MISFITS[message](vit))
    with pytest.raises(ValueError, match=message) as refusal:
        from_vit(source, replace(VIDEO, streams=("rgb",), fusion="late"))
    assert str(source) in str(refusal.value)


def torch_names(vit, prefix=""):
    """A ViT in the names and axes of Hugging Face's ViTModel."""
    layer = f"{prefix}encoder.layer."
    names = (
        ("Transformer/encoderblock_", layer),
        ("/MultiHeadDotProductAttention_0/out/", ".attention.output.dense."),
        ("/MultiHeadDotProductAttention_0/", ".attention.attention."),
        ("/LayerNorm_0/", ".layernorm_before."),
        ("/LayerNorm_1/", ".layernorm_after."),
        ("/MlpBlock_0/Dense_0/", ".intermediate.dense."),
        ("/MlpBlock_0/Dense_1/", ".output.dense."),
        ("Transformer/encoder_norm/", f"{prefix}layernorm."),
        ("embedding/", f"{prefix}embeddings.patch_embeddings.projection."),
        ("output_projection/", "classifier."),
    )
    full_names = {
        "cls": f"{prefix}embeddings.cls_token",
        POSITIONS: f"{prefix}embeddings.position_embeddings",
    }
    arrays = {}
    for name, x in vit.items():
        if name == "embedding/kernel":
            x = x.transpose(3, 2, 0, 1)
        elif name.endswith("kernel"):
            x = (x.reshape(-1, x.shape[-1]) if "/out/" in name else x.reshape(len(x), -1)).T
        elif "Attention" in name:
            x = x.reshape(-1)
        name = full_names.get(name, name)
        for ours, theirs in names:
            name = name.replace(ours, theirs)
        name = name.replace("/", ".").replace("scale", "weight").replace("kernel", "weight")
        arrays[name] = np.ascontiguousarray(x)
    return arrays


def hugging_face(folder, vit, prefix="", **values):
    folder.mkdir()
    safetensors.numpy.save_file(torch_names(vit, prefix), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_hugging_faces_names_and_axes_are_known(prefix, vit, tmp_path):
    folder = hugging_face(tmp_path / "hf", vit, prefix, num_attention_heads=2)
    assert same(from_vit(folder, VIDEO), from_vit(GOLDEN / "ckpt_vit_scenic", VIDEO))
    (folder / "config.json").write_text('{"num_attention_heads": 3}')
    with pytest.raises(ValueError, match="heads 3 where the model has 2"):
        from_vit(folder, VIDEO)


def test_timms_names_and_axes_are_known(vit, tmp_path):
    names = (
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("encoder.layer", "blocks"),
        ("attention.output.dense", "attn.proj"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("layernorm", "norm"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
        ("classifier", "head"),
    )
    timm = {}
    for name, x in torch_names(vit).items():
        for theirs, timms in names:
            name = name.replace(theirs, timms)
        timm[name] = x
    for block in range(2):
        for kind in ("weight", "bias"):
            start = f"blocks.{block}.attention.attention."
            parts = [timm.pop(f"{start}{part}.{kind}") for part in ("query", "key", "value")]
            timm[f"blocks.{block}.attn.qkv.{kind}"] = np.concatenate(parts)
    assert not any("attention" in name or "layer" in name for name in timm)
    safetensors.numpy.save_file(timm, tmp_path / "timm.safetensors")
    got = from_vit(tmp_path / "timm.safetensors", VIDEO)
    assert same(got, from_vit(GOLDEN / "ckpt_vit_scenic", VIDEO))
