"""Convert `tf.SequenceExample`s to and from bytes with protobuf, without TensorFlow.

The messages are those of TensorFlow's example.proto, with two differences that do not change the
bytes: a FloatList is declared as raw bytes, so that its packed numbers become an array at once, and
maps are lists of entries, which `encode` sorts by name, so that equal examples have equal bytes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

Value = list[bytes] | np.ndarray  # bytes, float32 [n] or int64 [n]

_SCHEMA = {  # message: {field, numbered from 1 on: its type}; * stands for repeated
    "BytesList": {"value": "bytes*"},
    "FloatList": {"value": "bytes*"},
    "Int64List": {"value": "int64*"},
    "Feature": {"bytes_list": "BytesList", "float_list": "FloatList", "int64_list": "Int64List"},
    "FeatureEntry": {"key": "string", "value": "Feature"},
    "Features": {"feature": "FeatureEntry*"},
    "FeatureList": {"feature": "Feature*"},
    "FeatureListEntry": {"key": "string", "value": "FeatureList"},
    "FeatureLists": {"feature_list": "FeatureListEntry*"},
    "SequenceExample": {"context": "Features", "feature_lists": "FeatureLists"},
}


def _sequence_example() -> type:
    """The message class SequenceExample of the schema."""
    file = descriptor_pb2.FileDescriptorProto(
        name="mbt_lite/sequence_example.proto", package="mbt_lite", syntax="proto3"
    )
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            added = message.field.add(name=field, number=number)
            added.label = added.LABEL_REPEATED if kind.endswith("*") else added.LABEL_OPTIONAL
            kind = kind.removesuffix("*")
            added.type = getattr(added, f"TYPE_{kind.upper()}", added.TYPE_MESSAGE)
            if kind in _SCHEMA:
                added.type_name = f".mbt_lite.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mbt_lite.SequenceExample"))


_SequenceExample = _sequence_example()


def encode(context: Mapping[str, Value], lists: Mapping[str, Sequence[Value]]) -> bytes:
    """The bytes of a SequenceExample."""
    example = _SequenceExample()
    for name in sorted(context):
        _fill(example.context.feature.add(key=name).value, context[name])
    for name in sorted(lists):
        steps = example.feature_lists.feature_list.add(key=name).value
        for value in lists[name]:
            _fill(steps.feature.add(), value)
    return example.SerializeToString()


def _fill(feature, value: Value) -> None:
    if isinstance(value, list):
        feature.bytes_list.value.extend(value)
    elif value.dtype == np.float32:
        feature.float_list.value.append(value.astype("<f4").tobytes())
    else:
        feature.int64_list.value.extend(value.tolist())


def decode(data: bytes) -> tuple[dict[str, Value], dict[str, list[Value]]]:
    """Context and feature lists of a SequenceExample; ValueError if the bytes are malformed."""
    try:
        example = _SequenceExample.FromString(data)
        context = {entry.key: _value(entry.value) for entry in example.context.feature}
        lists = example.feature_lists.feature_list
        return context, {e.key: [_value(step) for step in e.value.feature] for e in lists}
    except (DecodeError, ValueError) as error:  # ValueError: part of a number
        raise ValueError("it holds no SequenceExample") from error


def _value(feature) -> Value:
    """The values of a Feature; an empty list if it has none."""
    if feature.HasField("float_list"):
        return np.frombuffer(b"".join(feature.float_list.value), "<f4")
    if feature.HasField("int64_list"):
        return np.array(feature.int64_list.value, np.int64)
    return list(feature.bytes_list.value)
