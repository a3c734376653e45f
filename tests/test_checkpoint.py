"""Weights are converted completely or refused, and saved with what is known about them."""

import gc
import json
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import serialization, traverse_util
from tiny import SMALLEST as TINY

from mbt_lite import inference
from mbt_lite.checkpoints.io import (
    convert,
    flatten,
    from_scenic,
    load,
    save,
    to_scenic,
)
from mbt_lite.checkpoints.scenic import scenic_names, scenic_shape
from mbt_lite.config import BASE, ClipConfig, FrontEnd
from mbt_lite.model.flops import parameter_shapes
from mbt_lite.model.mbt import MBT, Clip

pytestmark = pytest.mark.usefixtures("compiled_quickly")

GOLDEN = Path(__file__).parent / "golden"
SHAPES = {"rgb_shape": (4, 8, 12), "spec_shape": (12, 8)}
TINY_CONFIG = {
    "modality_fusion": ("spectrogram", "rgb"),
    "num_layers": 2,
    "fusion_layer": 1,
    "use_bottleneck": True,
    "share_encoder": False,
    "classifier": "token",
}
TINY_SHAPES = {"rgb_shape": (2, 8, 8), "spec_shape": (8, 8)}


def scenic_tree(config):
    """A Scenic tree, flat, of random arrays."""
    rng = np.random.default_rng(0)
    return {
        part: rng.normal(size=scenic_shape(name, shape, config)).astype("f4")
        for name, shape in parameter_shapes(config).items()
        for part in scenic_names(name, config)
    }


@pytest.fixture(scope="module")
def params():
    return from_scenic(scenic_tree(TINY), TINY_CONFIG, **TINY_SHAPES)[1]


def nested(flat):
    return traverse_util.unflatten_dict(flat, sep="/")


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


@pytest.mark.parametrize("name", ["ckpt_old", "ckpt_new"])
def test_a_scenic_checkpoint_gives_scenics_logits(name, record_property):
    config, params, meta = load(GOLDEN / name, fusion_layer=1, **SHAPES)
    expected = np.load(GOLDEN / f"{name}_expected.npz", allow_pickle=False)
    clip = Clip(expected["inputs/rgb"], expected["inputs/spectrogram"])
    output = jax.jit(MBT(config).apply)({"params": params}, clip)
    error = np.abs(output.logits - expected["logits"]).max()
    record_property("error logits", f"{error:.0e}")
    assert error <= 1e-5
    assert meta == {"clip": None, "labels": None, "license": None}


def test_parameters_share_no_memory_with_the_tree_they_came_from():
    tree = {name: aligned(leaf) for name, leaf in flatten(scenic_tree(TINY))}
    params = from_scenic(tree, TINY_CONFIG, **TINY_SHAPES)[1]
    before = jax.tree.map(np.array, params)
    for leaf in tree.values():
        leaf[...] = np.nan
    assert same(params, before)


def aligned(array) -> np.ndarray:
    """A copy that begins where JAX would take it as it is."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def test_a_tree_goes_to_scenic_and_back_without_a_change():
    tree = scenic_tree(TINY)
    config, params = from_scenic(tree, TINY_CONFIG, **TINY_SHAPES)
    back = to_scenic(config, params)
    assert back.keys() == tree.keys()
    assert all(np.array_equal(back[name], x) for name, x in tree.items())
    lost = {name: x for name, x in params.items() if name not in ("bottleneck", "spec_cls")}
    with pytest.raises(ValueError, match="missing .2.: bottleneck, spec_cls"):
        to_scenic(config, lost)


OPEN_FIELDS = (  # that the arrays of at least one of these models leave open
    "streams",
    "fusion_layer",
    "pool",
    "rgb_shape",
    "rgb_patch",
    "rgb_sampled",
    "spec_shape",
    "spec_patch",
)


@pytest.mark.parametrize(
    "config",
    [
        replace(TINY, streams=("spec",), fusion="late", fusion_layer=2),
        replace(
            TINY,
            streams=("rgb",),
            fusion="late",
            fusion_layer=2,
            rgb_shape=(6, 8, 8),
            rgb_patch=(1, 4, 4),
            rgb_sampled=2,
        ),
        replace(TINY, fusion="joint", shared_encoder=True, pool="mean"),
        replace(TINY, representation=5, streams=("rgb", "spec")),
    ],
    ids=["audio only", "sampled frames", "shared encoder", "representation"],
)
@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ".safetensors"])
def test_weights_go_through_every_layout_without_a_change(suffix, config, tmp_path):
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(config)
    params = nested({name: rng.normal(size=shape).astype("f4") for name, shape in shapes.items()})
    first = save(tmp_path / "first.safetensors", params, config)
    second = convert(first, tmp_path / f"second{suffix}")
    fields = {field: getattr(config, field) for field in OPEN_FIELDS}
    loaded_config, again, _ = load(convert(second, tmp_path / "third.safetensors", **fields))
    assert loaded_config == config and same(params, again)


def test_the_libraries_of_each_format_can_read_what_is_written(saved, params, tmp_path):
    flat = to_scenic(TINY, params)
    convert(saved, tmp_path / "flat.npz")
    with np.load(tmp_path / "flat.npz", allow_pickle=False) as arrays:
        assert set(arrays) == set(flat)
        assert all(np.array_equal(arrays[name], x) for name, x in flat.items())
    convert(saved, tmp_path / "tree.msgpack")
    restored = serialization.msgpack_restore((tmp_path / "tree.msgpack").read_bytes())
    assert restored.keys() == {"params"}
    assert same(restored["params"], nested(flat))
    with safetensors.safe_open(saved, framework="numpy") as file:
        assert {name: file.get_tensor(name).shape for name in file.keys()} == {
            name: x.shape for name, x in flatten(params)
        }


@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ".safetensors"])
def test_bfloat16_halves_the_file_and_loads_as_float32(suffix, saved, params, tmp_path):
    half = convert(saved, tmp_path / f"half{suffix}", dtype="bfloat16")
    whole = convert(saved, tmp_path / f"whole{suffix}")
    weights = 4 * sum(x.size for x in jax.tree.leaves(params))
    assert whole.stat().st_size - half.stat().st_size > 0.45 * weights
    fields = {} if suffix == ".safetensors" else {"fusion_layer": 1, **TINY_SHAPES}
    _, again, meta = load(half, **fields)
    assert {str(x.dtype) for x in jax.tree.leaves(again)} == {"float32"}
    assert same(jax.tree.map(lambda x: x.astype("bfloat16").astype("float32"), params), again)
    assert "dtype" not in meta  # it was the file's; what is loaded is float32
    if suffix == ".safetensors":
        with safetensors.safe_open(half, framework="numpy") as file:
            assert file.metadata()["dtype"] == '"bfloat16"'


def test_a_conversion_to_the_source_or_an_unknown_format_is_refused(saved, params, tmp_path):
    before = saved.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(saved)
    for target in (saved, tmp_path / "link.safetensors"):
        with pytest.raises(ValueError, match="is the source itself"):
            convert(saved, target)
    with pytest.raises(ValueError, match="out.pt ends in none of .safetensors, .npz, .msgpack"):
        convert(saved, tmp_path / "out.pt")
    with pytest.raises(ValueError, match="dtype='int8': weights are saved as float32 or bfloat16"):
        convert(saved, tmp_path / "out.npz", dtype="int8")
    with pytest.raises(ValueError, match="dtype='int8'"):
        save(tmp_path / "out.safetensors", params, TINY, dtype="int8")
    assert saved.read_bytes() == before
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ".safetensors"])
def test_a_full_disk_leaves_the_old_file(suffix, saved, tmp_path):
    resource = pytest.importorskip("resource")
    target = tmp_path / f"out{suffix}"
    target.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            convert(saved, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()  # the archive that NumPy 2.1 leaves open complains
    assert target.read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {target.name, "new"}


def test_a_config_may_nest_its_temporal_encoding_as_scenic_does():
    config = replace(TINY, rgb_shape=(8, 8, 8), rgb_patch=(1, 4, 4), rgb_sampled=2)
    nested_config = TINY_CONFIG | {
        "patches": {"size": [4, 4, 1]},
        "temporal_encoding_config": {"method": "temporal_sampling", "n_sampled_frames": 2},
        "stochastic_droplayer_rate": 0.3,
    }
    shapes = TINY_SHAPES | {"rgb_shape": (8, 8, 8)}
    converted, _ = from_scenic(scenic_tree(config), nested_config, **shapes)
    assert converted == replace(config, drop_path=0.3)
    with pytest.raises(ValueError, match=r"config.classifier says \['0'\]"):
        from_scenic(scenic_tree(TINY), TINY_CONFIG | {"classifier": "0"}, **TINY_SHAPES)


def test_all_arrays_that_do_not_fit_are_named_at_once():
    tree = scenic_tree(TINY)
    missing = "Transformer/encoderblock_1_spectrogram/MlpBlock_0/Dense_1/bias"
    misshaped = "Transformer/encoderblock_0/MultiHeadDotProductAttention_0/out/kernel"
    del tree[missing]
    tree["pre_logits_old/bias"] = np.zeros(3, "f4")
    tree["cls"] = np.zeros((1, 1, 8), "i4")
    tree[misshaped] = tree[misshaped].swapaxes(0, 2)
    with pytest.raises(ValueError) as refusal:
        from_scenic(tree, TINY_CONFIG, **TINY_SHAPES)
    message = str(refusal.value)
    assert f"missing (1): {missing}" in message
    assert "unused (1): pre_logits_old/bias" in message
    assert "mis-shaped (2): " in message
    assert f"{misshaped} is float32 (8, 4, 2), should be float (2, 4, 8)" in message
    assert "cls is int32 (1, 1, 8), should be float (1, 1, 8)" in message
    lost = {k: x for k, x in scenic_tree(TINY).items() if "encoderblock_1" not in k}
    with pytest.raises(ValueError, match="missing .32.: Transformer/encoderblock_1"):
        from_scenic(lost, TINY_CONFIG, **TINY_SHAPES)


@pytest.mark.parametrize("stream", ["rgb", "spec"])
def test_the_unused_bottleneck_of_a_single_stream_is_accepted(stream):
    config = replace(TINY, streams=(stream,), fusion="late", fusion_layer=2)
    tree = scenic_tree(config)
    assert "cls" in tree and "clsspectrogram" not in tree
    shape = {f"{stream}_shape": config.shape(stream)}
    _, params = from_scenic(tree, **shape)
    _, again = from_scenic(tree | {"bottleneck": np.zeros((1, 5, 8), "f4")}, **shape)
    assert same(params, again)


def test_fields_that_a_file_leaves_open_are_the_papers_with_a_warning():
    config = replace(BASE, width=12, depth=10, mlp_dim=8, classes=3)
    with pytest.warns(
        UserWarning, match="fusion_layer .taken: 8.*spec_shape.*rgb_shape.*32, 224, 224"
    ):
        converted, _ = from_scenic(scenic_tree(config))
    assert converted == config


def test_an_ambiguous_grid_is_refused():
    with pytest.raises(ValueError, match=r"4 tokens of 'rgb'.*rgb_shape=\(frames, height, width\)"):
        from_scenic(scenic_tree(TINY), TINY_CONFIG, spec_shape=(8, 8))


CLIP = ClipConfig(frames=2, size=8, resize=8, front_end=FrontEnd(name="ours", mean=-4.5))


@pytest.fixture
def saved(tmp_path, params):
    card = {"data": "synthetic", "mAP": 0.5}
    return save(
        tmp_path / "new/tiny.safetensors",
        params,
        TINY,
        clip=CLIP,
        labels=("bell", "dog", "rain"),
        license="CC0-1.0",
        card=card,
    )


def test_saved_and_converted_weights_load_with_their_metadata(saved, params, tmp_path):
    config, again, meta = load(saved)
    assert config == TINY and same(params, again)
    assert meta["clip"] == CLIP and meta["labels"] == ["bell", "dog", "rain"]
    assert meta["license"] == "CC0-1.0" and meta["card"] == {"data": "synthetic", "mAP": 0.5}
    assert list(saved.parent.iterdir()) == [saved]
    assert load(saved, fusion_layer=0)[0] == replace(TINY, fusion_layer=0)
    fused = convert(saved, tmp_path / "fused.safetensors", fusion_layer=0)
    assert load(fused)[0].fusion_layer == 0 and load(fused)[2] == meta


def test_a_file_with_the_names_of_an_earlier_version_loads_the_same(saved):
    with safetensors.safe_open(saved, framework="numpy") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    metadata["licence"] = metadata.pop("license")
    names = {"window_fn": "taper", "amplitude": "scale", "centered": "centred"}
    for today, earlier in names.items():
        assert metadata["clip"].count(f'"{today}"') == 1
        metadata["clip"] = metadata["clip"].replace(f'"{today}"', f'"{earlier}"')
    path = saved.with_name("earlier.safetensors")
    safetensors.numpy.save_file(arrays, path, metadata)
    assert load(path)[2] == load(saved)[2]
    path.unlink()


def test_weights_that_do_not_fit_are_neither_written_nor_read(saved, params, tmp_path):
    with pytest.raises(ValueError, match="was not written.*\n.*missing.*block_2"):
        save(tmp_path / "deep.safetensors", params, replace(TINY, depth=3))
    with pytest.raises(ValueError, match="2 labels do not name 3 classes"):
        save(tmp_path / "labels.safetensors", params, TINY, labels=("bell", "dog"))
    assert not list(tmp_path.glob("*.safetensors*"))
    with pytest.raises(ValueError, match="mis-shaped.*head/bias"):
        load(saved, classes=4)
    with pytest.raises(ValueError, match="no field color"):
        load(saved, color="red")


def not_finite():
    tree = scenic_tree(TINY)
    tree["cls"][0, 0, 3] = np.inf
    return tree


def ours(path, **metadata):
    safetensors.numpy.save_file({"w": np.zeros(3, "f4")}, path, metadata)


BAD = {  # name: (how to write it, pattern of the message)
    "empty": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid x"),
        "is a git-lfs pointer, not the file itself; run git lfs pull",
    ),
    "nan.npz": (lambda path: np.savez(path, **not_finite()), "NaN or infinite, in .*cls"),
    "cut.safetensors": (lambda path: path.write_bytes(bytes(99)), "no whole safetensors"),
    "foreign.safetensors": (ours, "not mbt_lite's"),
    "config.safetensors": (
        lambda path: ours(path, format="mbt_lite", config='{"depth": -1}', clip="null"),
        "depth=-1",
    ),
    "other.npz": (lambda path: np.savez(path, a=np.zeros(3)), "is no MBT: .*'a'"),
    "nothing": (lambda path: None, "does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_name_in_a_sentence(name, tmp_path):
    write, message = BAD[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message) as refusal:
        load(tmp_path / name, fusion_layer=1, **TINY_SHAPES)
    assert str(tmp_path / name) in str(refusal.value)


ALTERED = (None, -1, 1.5, 10**9, 10**400, "x", [], {}, [10**9] * 3, float("nan"), 199)


def altered(value):
    """Copies of some JSON, in each of which one value is another."""
    yield from ALTERED
    if isinstance(value, dict):
        for name, inside in value.items():
            yield from ({**value, name: other} for other in altered(inside))
    elif isinstance(value, list):
        for place, inside in enumerate(value):
            for other in altered(inside):
                yield [*value[:place], other, *value[place + 1 :]]


@pytest.mark.slow
def test_no_altered_value_in_the_metadata_costs_more_than_a_sentence(tmp_path, params):
    """Every value in turn; what is still a model is built, whatever it may be called."""
    clip = ClipConfig(frames=2, size=8, resize=8, spec_frames=8, front_end=FrontEnd(mels=8))
    card = {"name": "tiny", "caution": "none", "scores": {"mAP": 0.5}}
    about = {"clip": clip, "labels": ("bell", "dog", "rain"), "card": card, "name": "tiny"}
    path = save(tmp_path / "tiny.safetensors", params, TINY, **about)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    assert inference.load(path).card["scores"] == {"mAP": 0.5}
    refused, start = 0, time.monotonic()
    deep = "[" * 50_000 + "]" * 50_000
    for name in metadata.keys() - {"format"}:
        texts = [json.dumps(value) for value in altered(json.loads(metadata[name]))]
        for text in (*texts, deep, "{"):
            safetensors.numpy.save_file(arrays, path, metadata | {name: text})
            try:
                repr(inference.load(path))
            except ValueError as error:
                refused += 1
                assert str(path) in str(error)
                assert len(str(error)) < 10_000
    assert refused > 400
    assert time.monotonic() - start < 120  # one value alone could have taken hours


def test_predictions_that_are_not_finite_and_clips_that_do_not_fit_are_errors(params, tmp_path):
    config = replace(TINY, rgb_shape=(2, 8, 8))
    clip = ClipConfig(frames=2, size=8, resize=8, spec_frames=8, front_end=FrontEnd(mels=8))
    huge = jax.tree.map(lambda x: x * 1e38, params)
    classifier = inference.Classifier(config, huge, clip, ("bell", "dog", "rain"))
    with pytest.raises(ValueError, match="logits are not finite"):
        classifier.predict(Clip(np.ones((2, 8, 8, 3), "f4"), np.ones((8, 8, 3), "f4")))
    late = save(tmp_path / "late.safetensors", params, TINY, clip=replace(clip, frames=5))
    with pytest.raises(ValueError, match=r"late.safetensors: clips of rgb \(5, 8, 8\) do not fit"):
        inference.load(late)
