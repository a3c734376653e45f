"""Convert `tf.SequenceExample`s to and from bytes, without TensorFlow.

Written by hand because a loader lives on it: floats are read as arrays, not number by number, a
loader process need not import a framework for three nested messages, and names are written in
sorted order, so that equal examples have equal bytes. tests/test_records.py holds it to protobuf.

A message is a row of fields: key (number << 3 | type), then a varint (type 0), 8 bytes (1), a
length and so many bytes (2), or 4 bytes (5).

    SequenceExample  1: context Features   2: FeatureLists
    Features, FeatureLists  1: entry of a name (1) and its Feature or FeatureList (2)
    FeatureList      1: Feature, repeated
    Feature          1: BytesList   2: FloatList   3: Int64List, each of which has 1: the values
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

Value = list[bytes] | np.ndarray  # bytes, float32 [n] or int64 [n]
VARINT, EIGHT, BYTES, FOUR = 0, 1, 2, 5
FLOATS, INTEGERS = 2, 3  # fields of a Feature


# ---- writing ----


def encode(context: Mapping[str, Value], lists: Mapping[str, Sequence[Value]]) -> bytes:
    """The bytes of a SequenceExample."""
    features = b"".join(_entry(name, _feature(context[name])) for name in sorted(context))
    steps = {name: b"".join(_field(1, _feature(v)) for v in lists[name]) for name in sorted(lists)}
    entries = b"".join(_entry(name, data) for name, data in steps.items())
    return _field(1, features) + _field(2, entries)


def _entry(name: str, data: bytes) -> bytes:
    return _field(1, _field(1, name.encode()) + _field(2, data))


def _feature(value: Value) -> bytes:
    if isinstance(value, list):
        return _field(1, b"".join(_field(1, data) for data in value))
    if value.dtype == np.float32:
        return _field(FLOATS, _field(1, value.astype("<f4").tobytes()))
    return _field(INTEGERS, _field(1, b"".join(_varint(int(n) % 2**64) for n in value)))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | BYTES) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes((*data, number))


# ---- reading ----


def decode(data: bytes) -> tuple[dict[str, Value], dict[str, list[Value]]]:
    """Context and feature lists of a SequenceExample; ValueError where the bytes are none."""
    context: dict[str, Value] = {}
    lists: dict[str, list[Value]] = {}
    try:
        for number, kind, start, end in _fields(data, 0, len(data)):
            if kind == BYTES and number in (1, 2):
                for name, begin, stop in _entries(data, start, end):
                    if number == 1:
                        context[name] = _value(data, begin, stop)
                    else:
                        lists[name] = [_value(data, b, e) for b, e in _steps(data, begin, stop)]
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("it holds no SequenceExample") from error
    return context, lists


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, type, where its bytes begin, where they end) of each field of a message."""
    while at < end:
        key, at = _number(data, at)
        kind = key & 7
        if kind == VARINT:
            stop = _number(data, at)[1]
        elif kind == BYTES:
            length, at = _number(data, at)
            stop = at + length
        elif kind in (EIGHT, FOUR):
            stop = at + (8 if kind == EIGHT else 4)
        else:
            raise IndexError(f"a field of type {kind}")
        if stop > end:
            raise IndexError("a field longer than its message")
        yield key >> 3, kind, at, stop
        at = stop


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint and where it ends."""
    byte = data[at]
    if byte < 128:
        return byte, at + 1
    number, shift = byte & 127, 7
    while True:
        at += 1
        byte = data[at]
        number |= (byte & 127) << shift
        if byte < 128:
            return number & 2**64 - 1, at + 1
        shift += 7
        if shift > 63:
            raise IndexError("a number of more than 64 bits")


def _entries(data: bytes, at: int, end: int) -> Iterator[tuple[str, int, int]]:
    """(name, where its value begins, where it ends) of each entry of a map."""
    for number, kind, start, stop in _fields(data, at, end):
        if number == 1 and kind == BYTES:
            parts = {n: (b, e) for n, k, b, e in _fields(data, start, stop) if k == BYTES}
            begin, finish = parts.get(1, (0, 0))
            yield data[begin:finish].decode(), *parts.get(2, (0, 0))


def _steps(data: bytes, at: int, end: int) -> list[tuple[int, int]]:
    return [(b, e) for number, kind, b, e in _fields(data, at, end) if (number, kind) == (1, BYTES)]


def _value(data: bytes, at: int, end: int) -> Value:
    """What a Feature holds; an empty list where it holds nothing."""
    for number, kind, start, stop in _fields(data, at, end):
        if kind == BYTES and number == FLOATS:
            return _floats(data, start, stop)
        if kind == BYTES and number == INTEGERS:
            return _integers(data, start, stop)
        if kind == BYTES and number == 1:
            return [data[b:e] for b, e in _steps(data, start, stop)]
    return []


def _floats(data: bytes, at: int, end: int) -> np.ndarray:
    """float32 [n] of a FloatList, whose numbers come in one piece or one by one."""
    pieces = [(b, e) for number, _, b, e in _fields(data, at, end) if number == 1]
    if any((e - b) % 4 for b, e in pieces):
        raise IndexError("part of a number")
    values = [np.frombuffer(data, "<f4", (e - b) // 4, b) for b, e in pieces]
    return np.concatenate(values) if len(values) > 1 else (values or [np.zeros(0, np.float32)])[0]


def _integers(data: bytes, at: int, end: int) -> np.ndarray:
    numbers = []
    for _, kind, start, stop in _fields(data, at, end):
        while start < stop:
            number, start = _number(data, start)
            numbers.append(number - 2**64 if number >= 2**63 else number)
        if kind not in (VARINT, BYTES):
            raise IndexError("no integer")
    return np.array(numbers, np.int64)
