"""Read weight files as flat arrays: Scenic's and Flax's msgpack, npz, safetensors.

Old and new Scenic train states, bare trees, pre-Linen trees and the npz files of big_vision and
vision_transformer all come out as {Scenic's slash-joined name: array}. Only the parameters are
read, each straight into the array that keeps it. Nothing here reads a pickle.
"""

import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import safetensors

from mbt_lite.checkpoints import flaxfile
from mbt_lite.checkpoints.download import hub_file
from mbt_lite.checkpoints.flaxfile import BFLOAT16, check_size
from mbt_lite.paths import stand_in

VIT = "https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz"
LARGEST = 8 << 30  # bytes; the largest published file, with its optimiser, is 1.4 GB
KNOWN_TO_NUMPY = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
SWELLING = 20  # an npz may unpack to so many times its size; weights hardly shrink at all

# What parameters lie in, in turn: old Scenic states, old big_vision, new states, Linen's variables.
WRAPPERS = ("optimizer/target/", "opt/target/", "params/", "params/")
NUMBERED = re.compile(r"(.+)_(\d+)")
BROKEN = (  # what bad bytes raise here, in NumPy, zipfile and Python's own parser
    ValueError,
    EOFError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    LookupError,
    TypeError,
    AttributeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

Leaf = TypeVar("Leaf")


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """{slash-joined name: array} of the parameters in a file or folder, as stored.

    Beyond the arrays themselves this takes next to no memory. `path` may be whatever `find` takes.
    """
    path = find(path)
    if is_safetensors(path):
        return read_safetensors(path)[0]
    with path.open("rb") as file:
        kind = "npz" if file.read(2) == b"PK" else "msgpack"
    try:
        arrays = _read_npz(path) if kind == "npz" else flaxfile.read(path, parameters)
        if not arrays:
            raise ValueError("it holds no arrays")
        return arrays
    except BROKEN as error:
        raise ValueError(
            f"{path} is no whole checkpoint (read as {kind}: {error}); give a safetensors file, a "
            "Scenic checkpoint or an npz, or get it anew."
        ) from None


def is_safetensors(path: Path) -> bool:
    """Whether the file is one by name, or by a JSON header after eight bytes."""
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """({name: array}, metadata) of a safetensors file, anybody's."""
    try:
        with safetensors.safe_open(path, framework="numpy", backend="pread") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            return arrays, file.metadata() or {}
    except (safetensors.SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); get it anew.") from None


def find(path: str | os.PathLike) -> Path:
    """The weights file meant by a file, a folder or hf://user/repo.

    In a folder that is model.safetensors, else `checkpoint`, else the checkpoint_N of most steps.
    """
    path = hub_file(str(path)) if str(path).startswith("hf://") else Path(path)
    while path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        known = path.name == Path(VIT).name
        more = f" Fetch it from {VIT} (about 0.4 GB) and put it there." if known else ""
        raise ValueError(f"{path} does not exist; give a safetensors, Scenic or npz file.{more}")
    if not 0 < path.stat().st_size <= LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, as no MBT file; get it anew.")
    with path.open("rb") as file:
        what = stand_in(file.read(64))
    if what:
        raise ValueError(f"{path} is {what}.")
    return path


def _in_folder(folder: Path) -> Path:
    if (folder / "model.safetensors").exists():
        return folder / "model.safetensors"
    steps = [p for p in folder.glob("checkpoint*") if re.fullmatch(r"checkpoint(_\d+)?", p.name)]
    if steps:
        return max(steps, key=lambda p: int(p.name.partition("_")[2] or 0))
    if (folder / "pytorch_model.bin").exists():
        raise ValueError(
            f"{folder} holds pytorch_model.bin, a pickle, which could run anything and is not read;"
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
    """(slash-joined name, leaf) of everything in a nested tree."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def parameters(leaves: Mapping[str, Leaf]) -> dict[str, Leaf]:
    """The leaves that are parameters, by Linen's names, out of whatever was saved around them."""
    found = dict(leaves)
    for wrapper in WRAPPERS:
        inside = {k.removeprefix(wrapper): x for k, x in found.items() if k.startswith(wrapper)}
        found = inside or found
    if any(re.search(r"/(MultiHeadDotProductAttention|MlpBlock)_[1-9]", name) for name in found):
        names = linen_names(found)
        found = {names[name]: x for name, x in found.items()}
    if "output_projection/kernel" not in found:
        found = {re.sub("^head/", "output_projection/", name): x for name, x in found.items()}
    return found


def linen_names(names: Iterable[str]) -> dict[str, str]:
    """{name: Linen's name for it} for parameters from before Linen, as Flax converts them.

    They were numbered through all classes of module (LayerNorm_0, MlpBlock_1, LayerNorm_2), Linen
    counts each class by itself. Blocks keep their numbers, so that a lost one leaves its gap.
    """
    paths = {name: name.split("/") for name in names}
    series = defaultdict(set)  # {(parent, class): numbers}
    for path in paths.values():
        for depth, part in enumerate(path):
            if match := NUMBERED.fullmatch(part):
                series[(*path[:depth], match[1])].add(int(match[2]))

    def renamed(path: list[str], depth: int) -> str:
        match = NUMBERED.fullmatch(path[depth])
        if not match or match[1] == "encoderblock":
            return path[depth]
        numbers = sorted(series[(*path[:depth], match[1])])
        return f"{match[1]}_{numbers.index(int(match[2]))}"

    return {k: "/".join(renamed(path, i) for i in range(len(path))) for k, path in paths.items()}


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type not in KNOWN_TO_NUMPY for info in archive.infolist()):
            raise ValueError("NumPy writes members plain or deflated, this has others")
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if sum(sizes.values()) > SWELLING * path.stat().st_size:
            raise ValueError(f"it would unpack to over {SWELLING} times its size")
        members = {k.removesuffix(".npy"): k for k in sizes if k.endswith(".npy")}
        return {
            name: _read_member(archive, member, sizes[member])
            for name, member in parameters(members).items()
        }


def _read_member(archive: zipfile.ZipFile, name: str, size: int) -> np.ndarray:
    """The array of one member; NumPy would allocate whatever its header claims."""
    with archive.open(name) as member:
        header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            np.lib.format.read_magic(member), np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(member)
        check_size(name, shape, dtype, size - member.tell())
        member.seek(0)
        array = np.lib.format.read_array(member, allow_pickle=False)
    return array.view(BFLOAT16) if array.dtype == "V2" else array  # NumPy has no name for it
