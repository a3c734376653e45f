"""Files of other projects give all their parameters and nothing else; damaged ones are refused."""

import io
import json
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest
import safetensors.numpy
from flax import serialization
from flax.traverse_util import unflatten_dict
from tiny import SMALLEST as TINY

from mbt_lite.checkpoints import formats
from mbt_lite.checkpoints.scenic import scenic_names, scenic_shape
from mbt_lite.config import BASE
from mbt_lite.model.flops import parameter_shapes

GOLDEN = Path(__file__).parent / "golden"


def scenic_shapes(config):
    """{Scenic's name: shape} of a whole model."""
    return {
        part: scenic_shape(name, shape, config)
        for name, shape in parameter_shapes(config).items()
        for part in scenic_names(name, config)
    }


def numbers(name, shape):
    """Random numbers that depend on the name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal(shape, np.float32)


TREE = {name: numbers(name, shape) for name, shape in scenic_shapes(TINY).items()}


def nested(flat):
    return unflatten_dict(flat, sep="/")


def old_state(tree, momentum="float32"):
    """The train state of the released files."""
    moments = {k: {"momentum": x.astype(momentum)} for k, x in tree.items()}
    return {
        "global_step": np.array(123, np.int32),
        "optimizer": {
            "target": nested(tree),
            "state": {"step": np.int32(123), "param_states": nested(moments)},
        },
        "model_state": {},
        "rng": np.array([0, 7], np.uint32),
        "accum_train_time": 4321,
    }


def new_state(tree):
    return {
        "global_step": 123,
        "opt_state": {"0": {"trace": {"params": nested(tree)}}, "1": {}},
        "params": nested(tree),
        "model_state": None,
        "rng": np.array([0, 7], np.uint32),
        "metadata": {"config": "text", "list": [1, 2.5, True, {"deep": b"bytes"}]},
    }


def numbered_through(tree):
    """The names from before Linen: one count for all classes in a block."""
    for linen, old in (
        ("MlpBlock_0", "MlpBlock_3"),
        ("LayerNorm_1", "LayerNorm_2"),
        ("MultiHeadDotProductAttention_0", "MultiHeadDotProductAttention_1"),
    ):
        tree = {name.replace(linen, old): x for name, x in tree.items()}
    return tree


def before_linen(tree):
    state = old_state(tree)
    state["optimizer"]["target"] = {"params": nested(numbered_through(tree))}
    return state | {"model_state": {"/batch/mean": np.zeros(3, "f4")}}


def headed(tree):
    return {k.replace("output_projection", "head"): x for k, x in numbered_through(tree).items()}


STATES = {
    "old": old_state,
    "old, moments in bfloat16": lambda tree: old_state(tree, ml_dtypes.bfloat16),
    "before Linen": before_linen,
    "new": new_state,
    "new, in params twice": lambda tree: new_state(tree) | {"params": {"params": nested(tree)}},
    "bare": nested,
    "variables": lambda tree: {"params": nested(tree), "batch_stats": {}},
}
NPZ = {
    "big_vision": lambda tree: (
        {f"opt/target/{k}": x for k, x in headed(tree).items()}
        | {"opt/state/step": np.int32(9), "extra/accum_train_time": np.float64(3.5)}
    ),
    "vision_transformer": headed,
    "flat": lambda tree: tree,
}


def same(a, b):
    assert a.keys() == b.keys()
    return all(a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in b)


@pytest.mark.parametrize("name", STATES)
def test_every_state_gives_its_parameters_only(name, tmp_path):
    path = tmp_path / "checkpoint_123"
    path.write_bytes(serialization.to_bytes(STATES[name](TREE)))
    assert same(formats.read(path), TREE)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", NPZ)
def test_every_npz_gives_its_parameters_only(name, save, tmp_path):
    save(tmp_path / "weights.npz", **NPZ[name](TREE))
    assert same(formats.read(tmp_path / "weights.npz"), TREE)


def test_bfloat16_parameters_stay_bfloat16(tmp_path):
    half = {name: x.astype(ml_dtypes.bfloat16) for name, x in TREE.items()}
    (tmp_path / "half").write_bytes(serialization.to_bytes(nested(half)))
    np.savez(tmp_path / "half.npz", **half)
    safetensors.numpy.save_file(half, tmp_path / "half.safetensors")
    for name in ("half", "half.npz", "half.safetensors"):
        assert same(formats.read(tmp_path / name), half)


def test_arrays_that_flax_cut_in_chunks_are_whole_again(tmp_path, monkeypatch):
    monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", 100)
    state = serialization.to_bytes(old_state(TREE))
    assert state.count(b"__msgpack_chunked_array__") > 20
    (tmp_path / "checkpoint_1").write_bytes(state)
    assert same(formats.read(tmp_path / "checkpoint_1"), TREE)


def test_a_lost_block_leaves_its_gap():
    tree = {k.replace("block_1", "block_2"): x for k, x in numbered_through(TREE).items()}
    names = formats.parameters(tree)
    assert {k.split("/")[1] for k in names if "encoderblock" in k} == {
        f"encoderblock_{i}{stream}" for i in (0, 2) for stream in ("", "_spectrogram")
    }


def flax_file(tree):
    return serialization.msgpack_serialize(nested(tree))


def array(shape, dtype, data):
    """A file of one array with any shape and dtype in its header."""
    return msgpack.packb({"w": msgpack.ExtType(1, msgpack.packb((shape, dtype, data)))})


def zipped(header, data=b""):
    """An npz with one member of this header."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, header)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w.npy", member.getvalue() + data)
    return file.getvalue()


def zip_bomb():
    file = io.BytesIO()
    np.savez_compressed(file, w=np.zeros(1 << 20, "f4"))
    return file.getvalue()


FLOATS = {"descr": "<f4", "fortran_order": False}
HOSTILE = {
    "cut": flax_file(TREE)[:-9],
    "web page": b"<!DOCTYPE html><html></html>",
    "extra bytes": flax_file(TREE) + b"more",
    "list": msgpack.packb([]),
    "number": msgpack.packb({"w": 3}),
    "huge map": b"\xdf\xff\xff\xff\xff",
    "huge list": b"\x81\xa1w\xdd\xff\xff\xff\xff",
    "deep maps": b"\x81\xa1w" * 5_000 + b"\xc0",
    "less deep maps": b"\x81\xa1w" * 900 + b"\xc0",
    "many entries": b"\x81\xa1w\xdd\x00\x10\x00\x00" + b"\xc0" * (1 << 20),
    "huge shape": array((1 << 40,), "float32", b"1234"),
    "negative shape": array((-1, -1), "float32", b"1234"),
    "objects": array((1,), "object", b"12345678"),
    "no array": msgpack.packb({"w": msgpack.ExtType(1, b"\xc0")}),
    "no chunks": msgpack.packb(
        {"w": {"__msgpack_chunked_array__": True, "shape": {"0": 1}, "chunks": {}}}
    ),
    "npz of a huge shape": zipped(FLOATS | {"shape": (1 << 40,)}),
    "npz of a negative shape": zipped(FLOATS | {"shape": (-1, -1)}, b"1234"),
    "npz of a pickle": zipped({"descr": "|O", "fortran_order": False, "shape": (1,)}, b"12345678"),
    "npz bomb": zip_bomb(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence(name, tmp_path):
    (tmp_path / "file").write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match="no whole checkpoint|a web page") as refusal:
        formats.read(tmp_path / "file")
    assert str(tmp_path / "file") in str(refusal.value)


@pytest.mark.parametrize("name", ["old", "npz", "safetensors"])
@pytest.mark.full
def test_a_file_cut_anywhere_is_refused(name, tmp_path):
    whole = tmp_path / f"whole.{name}"
    if name == "old":
        whole.write_bytes(serialization.to_bytes(old_state(TREE)))
    elif name == "npz":
        np.savez(whole, **TREE)
    else:
        safetensors.numpy.save_file(TREE, whole)
    data = whole.read_bytes()
    for length in np.linspace(1, len(data) - 1, 20, dtype=int):
        whole.write_bytes(data[:length])
        with pytest.raises(ValueError, match="no whole"):
            formats.read(whole)


FOLDERS = {
    "model.safetensors beside a checkpoint": (["model.safetensors", "checkpoint_3"], 0),
    "steps": (["checkpoint_9", "checkpoint_10"], 1),
    "a folder per step": (["checkpoint_9/checkpoint", "checkpoint_10/checkpoint"], 1),
    "one checkpoint": (["checkpoint"], 0),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_in_a_folder_the_weights_are_found(what, tmp_path):
    names, expected = FOLDERS[what]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert formats.find(tmp_path) == tmp_path / names[expected]


@pytest.mark.parametrize(
    "name, message",
    [
        ("pytorch_model.bin", "a pickle, which could run any code"),
        ("manifest.ocdbt", "an Orbax array store"),
        ("notes.txt", "a folder without model.safetensors or checkpoint_<step>"),
    ],
)
def test_a_folder_without_weights_to_read_says_so(name, message, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=message):
        formats.find(tmp_path)


MEASURE = """
import json, sys, zlib
import jax, numpy as np
from mbt_lite import checkpoints

def kilobytes(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what))

jax.numpy.zeros(3).block_until_ready()
path, target, dtype = sys.argv[1:]
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts again from here
base = kilobytes("VmRSS")
fields = dict(fusion_layer=8, rgb_shape=(32, 224, 224), spec_shape=(800, 128))
config, params, _ = checkpoints.load(path, **fields)
load = kilobytes("VmHWM") - base
checkpoints.save(target, params, config, dtype=dtype)
save = kilobytes("VmHWM") - base
for name, array in checkpoints.to_scenic(config, params).items():
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    assert np.array_equal(array, rng.standard_normal(array.shape, np.float32)), name
print(json.dumps([load * 1024, save * 1024]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux reports the peak")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_full_size_file_takes_twice_its_size_in_memory(dtype, tmp_path, record_property):
    path = tmp_path / "checkpoint_5"
    tree = {name: numbers(name, shape) for name, shape in scenic_shapes(BASE).items()}
    assert sum(x.size for x in tree.values()) == 175_009_295
    path.write_bytes(serialization.msgpack_serialize(old_state(tree)))
    del tree
    size = path.stat().st_size
    command = [sys.executable, "-c", MEASURE, str(path), str(tmp_path / "out.safetensors"), dtype]
    ran = subprocess.run(command, capture_output=True, text=True)
    for file in tmp_path.iterdir():
        file.unlink()  # two gigabytes
    assert ran.returncode == 0, ran.stderr
    peaks = json.loads(ran.stdout)
    for step, peak in zip(("load", "load and save"), peaks, strict=True):
        record_property(f"error {step}", f"{peak / size:.2f} of {size / 1e6:.0f} MB")
        assert peak <= 2.2 * size
