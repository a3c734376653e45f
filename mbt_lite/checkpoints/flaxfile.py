"""Read and write Flax's msgpack files, the format of Scenic's checkpoints, array by array.

The format: one msgpack map of maps, whose extension types 1 and 3 hold an array as [shape, name of
dtype, bytes]. A file is indexed before an array is read, so that the optimiser's half is stepped
over; every length is held against the size of the file; the numbers go straight into the array
that keeps them. msgpack's own reader would hold each array several times and read what it skips.
"""

import math
import os
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import msgpack
import numpy as np
from flax import serialization

MOST_NODES = 200_000  # entries of one file; MBT's has about 2,000
DEEPEST = 40  # maps within maps
LONGEST_KEY = 1_000  # bytes
CHUNKED = "__msgpack_chunked_array__"  # the mark on an array that was cut in pieces
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True)
class _Stored:
    """Where an array lies in its file."""

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: tuple[tuple[int, int], ...]  # (offset, bytes)


def read(path: Path, choose: Callable[[Mapping], Mapping]) -> dict[str, np.ndarray]:
    """{name: array} of the leaves that `choose` keeps, and renames, of {slash-joined name: leaf}.

    ValueError with the reason if the file is cut, bent or hostile.
    """
    with path.open("rb") as file:
        chosen = choose(_Index(file, path.stat().st_size).leaves)
        others = [name for name, leaf in chosen.items() if not isinstance(leaf, _Stored)]
        if others:
            raise ValueError(f"{', '.join(others[:3])} holds no array")
        return {name: _read_stored(file, stored) for name, stored in chosen.items()}


def write(file: BinaryIO, tree: Mapping, dtype: np.dtype) -> None:
    """Writes a tree of maps and arrays as Flax does, all of one type, array after array."""
    file.write(msgpack.Packer().pack_map_header(len(tree)))
    for name, value in tree.items():
        file.write(msgpack.packb(name))
        if isinstance(value, Mapping):
            write(file, value, dtype)
        else:
            file.write(serialization.msgpack_serialize(np.asarray(value, dtype)))


def _read_stored(file: BinaryIO, stored: _Stored) -> np.ndarray:
    array = np.empty(stored.shape, stored.dtype)
    room = memoryview(array.reshape(-1).view(np.uint8))
    for offset, size in stored.pieces:
        file.seek(offset)
        file.readinto(room[:size])
        room = room[size:]
    return array


# What a msgpack value begins with, beyond the ranges in `_Index.head`; all numbers are big-endian.
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
NUMBERS = {0xCA + i: f">{form}" for i, form in enumerate("fdBHIQbhiq")}
LENGTHS = {  # tag: (kind, bytes of the length)
    **{0xC4 + i: ("bytes", 1 << i) for i in range(3)},
    **{0xC7 + i: ("extension", 1 << i) for i in range(3)},
    **{0xD9 + i: ("bytes", 1 << i) for i in range(3)},
    **{0xDC + i: ("list", 2 << i) for i in range(2)},
    **{0xDE + i: ("map", 2 << i) for i in range(2)},
}


class _Index:
    """`leaves`: {slash-joined name: _Stored, or a number, or None for the rest} of a file."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size, self.nodes, self.leaves = file, size, 0, {}
        self.walk(())
        if file.tell() != size:
            raise ValueError(f"{size - file.tell()} bytes follow where it should end")

    def left(self, count: int) -> int:
        """`count`, if the file has so many bytes left."""
        if count > self.size - self.file.tell():
            raise ValueError(f"it ends {count - self.size + self.file.tell()} bytes too early")
        return count

    def take(self, count: int) -> bytes:
        return self.file.read(self.left(count))

    def head(self) -> tuple[str, object]:
        """(kind, value) of what comes next: the number itself, or how many entries or bytes."""
        tag = self.take(1)[0]
        for below, kind, base in ((0x80, "number", 0), (0x90, "map", 0x80), (0xA0, "list", 0x90)):
            if tag < below:
                return kind, tag - base
        if tag < 0xC0:
            return "bytes", tag - 0xA0
        if tag >= 0xE0:
            return "number", tag - 0x100
        if tag in CONSTANTS:
            return "number", CONSTANTS[tag]
        if tag in NUMBERS:
            form = NUMBERS[tag]
            return "number", struct.unpack(form, self.take(struct.calcsize(form)))[0]
        if 0xD4 <= tag <= 0xD8:
            return "extension", 1 << tag - 0xD4
        if tag not in LENGTHS:
            raise ValueError(f"byte {tag:#x} begins no value")
        kind, width = LENGTHS[tag]
        return kind, int.from_bytes(self.take(width), "big")

    def walk(self, path: tuple[str, ...]) -> None:
        """Steps over the next value, and notes its leaves."""
        self.nodes += 1
        if self.nodes > MOST_NODES or len(path) > DEEPEST:
            raise ValueError(f"it has over {MOST_NODES} entries, or maps {DEEPEST} deep")
        kind, value = self.head()
        before = len(self.leaves)
        if kind in ("map", "list"):
            for place in range(value):
                self.walk((*path, self.key() if kind == "map" else str(place)))
            if "/".join((*path, CHUNKED)) in self.leaves:
                self.join_chunks("/".join(path), before)
            return
        name = "/".join(path)
        if not path or name in self.leaves:
            raise ValueError(f"it is no map of names, or has {name!r} twice")
        self.leaves[name] = value if kind == "number" else None
        if kind == "extension":
            self.leaves[name] = self.extension(name, value)
        elif kind == "bytes":
            self.file.seek(self.left(value), os.SEEK_CUR)

    def key(self) -> str:
        kind, value = self.head()
        if kind == "number":
            return str(value)
        if kind != "bytes" or value > LONGEST_KEY:
            raise ValueError("an entry of a map has no name")
        return self.take(value).decode()

    def extension(self, name: str, size: int) -> _Stored | None:
        """Where the numbers of an array lie; None for other extensions."""
        code = self.take(1)[0]
        end = self.file.tell() + self.left(size)
        stored = self.array(name, end) if code in (1, 3) else None
        self.file.seek(end)
        return stored

    def array(self, name: str, end: int) -> _Stored | None:
        (whole, three), (sides, rank) = self.head(), self.head()
        if (whole, three, sides) != ("list", 3, "list") or rank > 32:
            raise ValueError(f"{name} is no array as Flax writes it")
        shape = tuple(self.head()[1] for _ in range(rank))
        dtype = _dtype(self.key())
        kind, size = self.head()
        offset = self.file.tell()
        if kind != "bytes" or offset + size != end:
            raise ValueError(f"{name} holds {size} bytes where {end - offset} should be")
        if dtype is None:
            return None
        check_size(name, shape, dtype, size)
        return _Stored(shape, dtype, ((offset, size),))

    def join_chunks(self, name: str, before: int) -> None:
        """Puts one leaf in place of the map that Flax writes for an array over 1 GiB."""
        parts = dict(self.leaves.popitem() for _ in range(len(self.leaves) - before))
        sides = [f"{name}/shape/{i}" for i in range(len(parts))]
        shape = tuple(parts[side] for side in sides if side in parts)
        chunks = [f"{name}/chunks/{i}" for i in range(len(parts))]
        found = [parts[chunk] for chunk in chunks if chunk in parts]
        if len(parts) != 1 + len(shape) + len(found) or not found:
            raise ValueError(f"{name} is no array in chunks")
        if not all(isinstance(x, _Stored) and x.dtype == found[0].dtype for x in found):
            raise ValueError(f"the chunks of {name} differ in kind")
        pieces = tuple(piece for x in found for piece in x.pieces)
        check_size(name, shape, found[0].dtype, sum(size for _, size in pieces))
        self.leaves[name] = _Stored(shape, found[0].dtype, pieces)


def _dtype(name: str) -> np.dtype | None:
    """The NumPy type that Flax names so, None unless it is one of numbers."""
    if name == "bfloat16":
        return BFLOAT16
    try:
        return np.dtype(name) if re.fullmatch(r"(u?int|float|complex)\d+|bool", name) else None
    except TypeError:
        return None


def check_size(name: str, shape: tuple, dtype: np.dtype, size: int) -> None:
    """ValueError unless an array of that shape and type fills just so many bytes."""
    if dtype.hasobject:
        raise ValueError(f"{name} is an array of objects, which only allow_pickle would read")
    counts = all(type(n) is int and n >= 0 for n in shape)
    if not counts or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"{name} claims {dtype} {shape} in {size} bytes")
