"""Read and write TFRecord files without TensorFlow, and locate damage in them.

A record is its length (uint64), a check of the length, the data, and a check of the data; checks
are masked CRC-32C, all numbers little-endian.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import google_crc32c

LENGTH = struct.Struct("<Q")
CHECK = struct.Struct("<I")
HEADER = LENGTH.size + CHECK.size  # bytes before the data of a record
OVERHEAD = HEADER + CHECK.size  # bytes of a record besides its data


class Index(NamedTuple):
    """Where the data of the records of a file lie, and in a phrase why they end early."""

    offsets: list[int]  # bytes
    lengths: list[int]  # bytes
    fault: str | None = None


def framed(data: bytes) -> bytes:
    """The bytes of a record that holds `data`."""
    length = LENGTH.pack(len(data))
    return b"".join((length, CHECK.pack(_check(length)), data, CHECK.pack(_check(data))))


def index(path: Path) -> Index:
    """The `Index` of a file, which reads the headers only; OSError where it cannot be read."""
    offsets, lengths, at = [], [], 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while at < size:
            header = os.pread(file.fileno(), HEADER, at)
            fault = _fault(header, size - at)
            if fault:
                return Index(offsets, lengths, fault)
            lengths.append(LENGTH.unpack_from(header)[0])
            offsets.append(at + HEADER)
            at += OVERHEAD + lengths[-1]
    return Index(offsets, lengths)


def _fault(header: bytes, left: int) -> str | None:
    """What is wrong with a record of which this header and so many bytes are there."""
    if len(header) < HEADER:
        return f"the file is cut off: {left} bytes are left of it"
    length, check = LENGTH.unpack_from(header)[0], CHECK.unpack_from(header, LENGTH.size)[0]
    if check != _check(header[: LENGTH.size]):
        return "its length is damaged, so that nothing after it can be found"
    if length + OVERHEAD > left:
        return f"the file is cut off: {left} of {length + OVERHEAD} bytes are left of it"
    return None


def read(path: Path, offset: int, length: int) -> bytes:
    """The data of one record; ValueError with a phrase where it is damaged."""
    with path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), length, offset)
        check = os.pread(file.fileno(), CHECK.size, offset + length)
    if len(data) < length or len(check) < CHECK.size:
        raise ValueError("the file is cut off in it")
    if CHECK.unpack(check)[0] != _check(data):
        raise ValueError("its bytes are damaged (the check sum differs)")
    return data


def write(path: Path, records: Sequence[bytes] | Iterator[bytes]) -> int:
    """Write a file of records, whole or not at all, on the disk when this returns; its bytes."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            for data in records:
                file.write(framed(data))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size


def _check(data: bytes) -> int:
    """The masked CRC-32C, so that checks of checks stay good."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
