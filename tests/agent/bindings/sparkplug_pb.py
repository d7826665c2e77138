"""Sparkplug B payloads by the real protobuf library, from the specification's field table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

TYPES = descriptor_pb2.FieldDescriptorProto
PAYLOAD = (
    ("timestamp", 1, TYPES.TYPE_UINT64),
    ("metrics", 2, TYPES.TYPE_MESSAGE),
    ("seq", 3, TYPES.TYPE_UINT64),
    ("uuid", 4, TYPES.TYPE_STRING),
    ("body", 5, TYPES.TYPE_BYTES),
)
METRIC = (
    ("name", 1, TYPES.TYPE_STRING),
    ("alias", 2, TYPES.TYPE_UINT64),
    ("timestamp", 3, TYPES.TYPE_UINT64),
    ("datatype", 4, TYPES.TYPE_UINT32),
    ("is_historical", 5, TYPES.TYPE_BOOL),
    ("is_transient", 6, TYPES.TYPE_BOOL),
    ("is_null", 7, TYPES.TYPE_BOOL),
    ("int_value", 10, TYPES.TYPE_UINT32),
    ("long_value", 11, TYPES.TYPE_UINT64),
    ("float_value", 12, TYPES.TYPE_FLOAT),
    ("double_value", 13, TYPES.TYPE_DOUBLE),
    ("boolean_value", 14, TYPES.TYPE_BOOL),
    ("string_value", 15, TYPES.TYPE_STRING),
    ("bytes_value", 16, TYPES.TYPE_BYTES),
)
"""Field names, numbers and types of the specification's ``sparkplug_b.proto``."""


def _make() -> Callable[[], Any]:
    """The message class, made by the protobuf library from the table above."""
    file = descriptor_pb2.FileDescriptorProto(name="spb_test.proto", package="spb", syntax="proto2")
    for name, rows in (("Metric", METRIC), ("Payload", PAYLOAD)):
        message = file.message_type.add(name=name)
        for field, number, kind in rows:
            repeated = field == "metrics"
            message.field.add(
                name=field, number=number, type=kind,
                label=TYPES.LABEL_REPEATED if repeated else TYPES.LABEL_OPTIONAL,
                type_name=".spb.Metric" if repeated else None,
            )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("spb.Payload"))


PayloadMessage = _make()


def encode(*rows: dict[str, Any], timestamp: int = 1_700_000_000_000) -> bytes:
    """A payload by the protobuf library."""
    message = PayloadMessage()
    message.timestamp = timestamp
    message.seq = 3
    for row in rows:
        metric = message.metrics.add()
        for key, value in row.items():
            setattr(metric, key, value)
    return bytes(message.SerializeToString())
