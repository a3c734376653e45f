"""Convert `tf.SequenceExample`s to and from bytes, without TensorFlow.

Written by hand because a loader spends its time here: floats are read as arrays, not number by
number, and a loader process need not import a framework for three nested messages. Names are
written in sorted order, so that equal examples have equal bytes. tests/test_records.py compares it
with protobuf.

A message is a sequence of fields: a key (number << 3 | type), then a varint (type 0), 8 bytes (1),
a length and so many bytes (2), or 4 bytes (5).

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
MALFORMED = "it holds no SequenceExample"


# ---- writing ----


def encode(context: Mapping[str, Value], lists: Mapping[str, Sequence[Value]]) -> bytes:
    """The bytes of a SequenceExample."""
    features = {name: _feature(value) for name, value in context.items()}
    steps = {name: b"".join(_field(1, _feature(v)) for v in lists[name]) for name in lists}
    return _field(1, _map(features)) + _field(2, _map(steps))


def _map(entries: Mapping[str, bytes]) -> bytes:
    items = sorted(entries.items())
    return b"".join(_field(1, _field(1, name.encode()) + _field(2, data)) for name, data in items)


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
    """Context and feature lists of a SequenceExample; ValueError if the bytes are malformed."""
    context: dict[str, Value] = {}
    lists: dict[str, list[Value]] = {}
    try:
        message = memoryview(data)
        for features in _children(message, 1):
            context |= {name: _value(feature) for name, feature in _entries(features)}
        for features in _children(message, 2):
            for name, steps in _entries(features):
                lists[name] = [_value(step) for step in _children(steps, 1)]
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(MALFORMED) from error
    return context, lists


def _fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """(number, type, bytes of the value) of each field; IndexError if the message is malformed."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        kind = key & 7
        if kind == VARINT:
            end = _read_varint(message, position)[1]
        elif kind == BYTES:
            length, position = _read_varint(message, position)
            end = position + length
        elif kind in (EIGHT, FOUR):
            end = position + (8 if kind == EIGHT else 4)
        else:
            raise IndexError(f"a field of type {kind}")
        if end > len(message):
            raise IndexError("a field longer than its message")
        yield key >> 3, kind, message[position:end]
        position = end


def _read_varint(data: memoryview, position: int) -> tuple[int, int]:
    """A varint and the position after it."""
    number, shift = 0, 0
    while shift < 64:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number & 2**64 - 1, position
        shift += 7
    raise IndexError("a number of more than 64 bits")


def _children(message: memoryview, number: int) -> list[memoryview]:
    return [body for n, kind, body in _fields(message) if (n, kind) == (number, BYTES)]


def _entries(features: memoryview) -> Iterator[tuple[str, memoryview]]:
    """(name, value) of each entry of a map."""
    for entry in _children(features, 1):
        parts = {number: body for number, kind, body in _fields(entry) if kind == BYTES}
        empty = memoryview(b"")
        yield bytes(parts.get(1, empty)).decode(), parts.get(2, empty)


def _value(feature: memoryview) -> Value:
    """The values of a Feature; an empty list if it has none."""
    for number, kind, body in _fields(feature):
        if kind == BYTES and number == FLOATS:
            return _floats(body)
        if kind == BYTES and number == INTEGERS:
            return _integers(body)
        if kind == BYTES and number == 1:
            return [bytes(item) for item in _children(body, 1)]
    return []


def _floats(body: memoryview) -> np.ndarray:
    """float32 [n] of a FloatList, whose numbers are packed or single fields."""
    pieces = [piece for number, _, piece in _fields(body) if number == 1]
    if any(len(piece) % 4 for piece in pieces):
        raise IndexError("part of a number")
    return np.frombuffer(b"".join(pieces), "<f4")


def _integers(body: memoryview) -> np.ndarray:
    numbers = []
    for _, kind, piece in _fields(body):
        if kind not in (VARINT, BYTES):
            raise IndexError("no integer")
        position = 0
        while position < len(piece):
            number, position = _read_varint(piece, position)
            numbers.append(number - 2**64 if number >= 2**63 else number)
    return np.array(numbers, np.int64)
