"""Read weight files as flat arrays: Scenic's and Flax's msgpack, npz, safetensors.

Old and new Scenic train states, bare trees, pre-Linen trees and the npz files of big_vision and
vision_transformer all give {Scenic's slash-joined name: array}, of the parameters alone. No pickle
is ever read.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
from flax import serialization, traverse_util

from mbt_lite.checkpoints.download import hub_file
from mbt_lite.paths import stand_in

_VIT = "https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
LARGEST = 8 << 30  # bytes; the largest published file, with its optimizer, has 1.4 GB
_LARGEST_RATIO = 20  # of an npz unpacked to its file; weights hardly compress at all

# Prefixes of the parameters, in turn: old Scenic states, old big_vision, new states, Linen.
_WRAPPERS = ("optimizer/target/", "opt/target/", "params/", "params/")


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read {slash-joined name: array} of the parameters in a file or folder, in their own dtypes.

    `path` may be whatever `find` takes. An msgpack file takes twice its size in memory for a
    moment, other files no more than their arrays.
    """
    path = find(path)
    if is_safetensors(path):
        return read_safetensors(path)[0]
    with path.open("rb") as file:
        kind = "npz" if file.read(2) == b"PK" else "msgpack"
    try:
        arrays = _read_npz(path) if kind == "npz" else _read_msgpack(path)
        others = [name for name, x in arrays.items() if not isinstance(x, np.ndarray)]
        if others or not arrays:
            raise ValueError(f"{', '.join(others[:3]) or 'it'} holds no array")
        return arrays
    except Exception as error:  # NumPy, zipfile and msgpack raise nearly any for damaged bytes
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{path} is no whole checkpoint (read as {kind}: {reason}); give a safetensors file, a "
            "Scenic checkpoint or an npz, or get it anew."
        ) from None


def _read_msgpack(path: Path) -> dict:
    """The parameters of a Flax file; its optimizer is dropped.

    msgpack holds every length against the size of the file, and refuses maps over 1,000 deep.
    """
    tree = serialization.msgpack_restore(path.read_bytes())
    if not isinstance(tree, Mapping):
        raise ValueError("it is no map of names")
    return parameters(dict(flatten(tree)))


def _read_npz(path: Path) -> dict:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        unpacked = sum(info.file_size for info in archive.zip.infolist())
        if unpacked > _LARGEST_RATIO * path.stat().st_size:
            raise ValueError(f"it would unpack to over {_LARGEST_RATIO} times its size")
        members = parameters({name: name for name in archive.files})
        arrays = {name: archive[member] for name, member in members.items()}
    return {  # NumPy has no name for bfloat16
        name: x.view(BFLOAT16) if getattr(x, "dtype", None) == "V2" else x
        for name, x in arrays.items()
    }


def is_safetensors(path: Path) -> bool:
    """Whether the file is one by name, or by a JSON header after eight bytes."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read ({name: array}, metadata) of any safetensors file."""
    try:
        with safetensors.safe_open(path, framework="numpy", backend="pread") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            return arrays, file.metadata() or {}
    except (safetensors.SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); get it anew.") from None


def find(path: str | os.PathLike) -> Path:
    """Find the weights file that a file, a folder or hf://user/repo stands for.

    In a folder that is model.safetensors, else `checkpoint`, else the checkpoint_N of most steps.
    """
    path = hub_file(str(path)) if str(path).startswith("hf://") else Path(path)
    while path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        more = ""
        if path.name == Path(_VIT).name:
            more = f" Download it from {_VIT} (about 0.4 GB) and put it there."
        raise ValueError(f"{path} does not exist; give a safetensors, Scenic or npz file.{more}")
    size = path.stat().st_size
    if not 0 < size <= LARGEST:
        raise ValueError(f"{path} has {size} bytes, which no MBT file has; get it anew.")
    with path.open("rb") as file:
        instead = stand_in(file.read(64))
    if instead:
        raise ValueError(f"{path} is {instead}.")
    return path


def _in_folder(folder: Path) -> Path:
    if (folder / "model.safetensors").exists():
        return folder / "model.safetensors"
    steps = [p for p in folder.glob("checkpoint*") if re.fullmatch(r"checkpoint(_\d+)?", p.name)]
    if steps:
        return max(steps, key=lambda p: int(p.name.partition("_")[2] or 0))
    if (folder / "pytorch_model.bin").exists():
        raise ValueError(
            f"{folder} holds pytorch_model.bin, a pickle, which could run any code and is not read;"
            " save the model as model.safetensors."
        )
    if any(folder.glob("*ocdbt*")):
        raise ValueError(
            f"{folder} holds an Orbax array store, not weights to load; save its parameters as "
            "safetensors, npz or msgpack."
        )
    raise ValueError(
        f"{folder} is a folder without model.safetensors or checkpoint_<step>; name the file."
    )


def flatten(tree: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield (slash-joined name, leaf) of everything in a nested tree."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def parameters(leaves: Mapping[str, object]) -> dict:
    """Select the parameters from a flat train state, and give them Linen's names."""
    selected = dict(leaves)
    for wrapper in _WRAPPERS:
        inside = {k.removeprefix(wrapper): x for k, x in selected.items() if k.startswith(wrapper)}
        selected = inside or selected
    if any(re.search(r"/(MultiHeadDotProductAttention|MlpBlock)_[1-9]", name) for name in selected):
        selected = _as_linen(selected)
    if "output_projection/kernel" not in selected:
        selected = {re.sub("^head/", "output_projection/", k): x for k, x in selected.items()}
    return selected


def _as_linen(leaves: Mapping[str, object]) -> dict:
    """Give parameters from before Linen its names, as Flax converts them.

    They were numbered through all classes of module (LayerNorm_0, MlpBlock_1, LayerNorm_2), Linen
    counts each class by itself. Blocks keep their numbers, so that a lost one leaves its gap.
    """
    from flax.training.checkpoints import convert_pre_linen  # takes seconds to import

    hidden = {name.replace("encoderblock_", "encoderblock-"): x for name, x in leaves.items()}
    tree = convert_pre_linen(traverse_util.unflatten_dict(hidden, sep="/"))
    return {name.replace("encoderblock-", "encoderblock_"): x for name, x in flatten(tree)}
