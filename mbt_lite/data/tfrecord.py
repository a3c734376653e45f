"""Read and write TFRecord files without TensorFlow, and locate damage in them.

A record is its length (uint64), a checksum of the length, the data, and a checksum of the data;
checksums are masked CRC-32C, all numbers little-endian.
"""

import os
import struct
from pathlib import Path
from typing import NamedTuple

import google_crc32c

LENGTH = struct.Struct("<Q")
CHECKSUM = struct.Struct("<I")
HEADER = LENGTH.size + CHECKSUM.size  # bytes before the data of a record
OVERHEAD = HEADER + CHECKSUM.size  # bytes of a record besides its data


class Index(NamedTuple):
    """Where the data of the records of a file are, and in a phrase why they end early."""

    offsets: list[int]  # bytes
    lengths: list[int]  # bytes
    fault: str | None = None


def framed(data: bytes) -> bytes:
    """The bytes of a record that holds `data`."""
    length = LENGTH.pack(len(data))
    return b"".join((length, _checksum(length), data, _checksum(data)))


def index(path: Path) -> Index:
    """The `Index` of a file, of which only the headers are read; OSError if it cannot be read."""
    offsets, lengths, position = [], [], 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while position < size:
            header = os.pread(file.fileno(), HEADER, position)
            if fault := _fault(header, size - position):
                return Index(offsets, lengths, fault)
            lengths.append(LENGTH.unpack_from(header)[0])
            offsets.append(position + HEADER)
            position += OVERHEAD + lengths[-1]
    return Index(offsets, lengths)


def _fault(header: bytes, left: int) -> str | None:
    """What is wrong with a record that has this header, `left` bytes before the end of its file."""
    if len(header) < HEADER:
        return f"the file is cut off: {left} bytes are left of it"
    if header[LENGTH.size :] != _checksum(header[: LENGTH.size]):
        return "its length is damaged, so that nothing after it can be found"
    total = LENGTH.unpack_from(header)[0] + OVERHEAD
    return f"the file is cut off: {left} of {total} bytes are left of it" if total > left else None


def read(path: Path, offset: int, length: int) -> bytes:
    """The data of one record; ValueError with a phrase if it is damaged."""
    with path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), length, offset)
        checksum = os.pread(file.fileno(), CHECKSUM.size, offset + length)
    if len(data) < length or len(checksum) < CHECKSUM.size:
        raise ValueError("the file is cut off in it")
    if checksum != _checksum(data):
        raise ValueError("its bytes are damaged (the checksum differs)")
    return data


def _checksum(data: bytes) -> bytes:
    """The masked CRC-32C; unmasked, the checksum of data with its checksum would be constant."""
    crc = google_crc32c.value(data)
    return CHECKSUM.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
